"""The only version of aiokafka that Octopus takes, checked before any of it is imported."""

from importlib.metadata import version

from octopus.errors import ConfigurationError

TESTED = "0.14.0"
"""Its inside is read (`kafka/engine.py`, `kafka/producer_engine.py`). No test shows that another version loses no event."""


def check_aiokafka() -> None:
    """Check the installed version.

    Raises:
        ConfigurationError: It is not the version that was tested.
    """
    found = version("aiokafka")
    if found != TESTED:
        raise ConfigurationError(
            f"aiokafka {found} is installed, and Octopus reads the inside of {TESTED}. "
            f"Install that one: pip install aiokafka=={TESTED}."
        )
