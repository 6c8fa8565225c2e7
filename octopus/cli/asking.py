"""Questions before something that cannot be taken back."""

import sys

from octopus.cli.screen import notices
from octopus.errors import ConfigurationError, OperationFailed


def confirm(question: str) -> None:
    """Ask, and return if the answer is yes.

    Raises:
        ConfigurationError: No person is there to answer.
        OperationFailed: The answer is no.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{question} Nobody can answer here; say --yes, or see with --dry-run what it would do."
        )
    notices().print(f"{question} [y/N] ", end="", markup=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise OperationFailed("Nothing was changed.")
