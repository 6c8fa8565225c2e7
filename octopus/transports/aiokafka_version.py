"""The only aiokafka that Octopus takes, asked for before anything of it is imported."""

from importlib.metadata import version

from octopus.errors import ConfigurationError

TESTED = "0.14.0"
"""Its inside is read (`kafka/engine.py`). With another one nobody could say that no event is lost."""


def check_aiokafka() -> None:
    """Look which one is installed.

    Raises:
        ConfigurationError: It is not the version that was tested.
    """
    found = version("aiokafka")
    if found != TESTED:
        raise ConfigurationError(
            f"aiokafka {found} is installed, and Octopus reads the inside of {TESTED}. "
            f"Install that one: pip install aiokafka=={TESTED}."
        )
