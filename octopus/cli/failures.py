"""From an exception to an exit code and a sentence."""

from octopus.errors import (
    AuthError,
    ConfigurationError,
    HandlerStopped,
    OctopusError,
    PatternError,
    TransportError,
)
from octopus.worker.exit_codes import ExitCode

CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ConfigurationError, ExitCode.CONFIGURATION),
    (PatternError, ExitCode.CONFIGURATION),
    (HandlerStopped, ExitCode.PROCESSING_STOPPED),
    (TransportError, ExitCode.UNREACHABLE),
    (AuthError, ExitCode.UNREACHABLE),
    (OctopusError, ExitCode.FAILED),
)


def exit_code(error: Exception) -> tuple[ExitCode, str]:
    """Return how the process ends, and what to tell the user."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("the lifespan of ")]
    for kind, code in CODES:
        if isinstance(error, kind):
            return code, ": ".join([*notes, str(error)])
    if notes:
        text = f"{type(error).__name__}: {error}".rstrip(". ")
        return ExitCode.FAILED, f"{': '.join(notes)}: {text}. --traceback shows more."
    if isinstance(error, OSError):
        return ExitCode.FAILED, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
    if (
        isinstance(error, BaseExceptionGroup)
        and len(error.exceptions) == 1
        and isinstance(error.exceptions[0], Exception)
    ):
        return exit_code(error.exceptions[0])
    text = f"{type(error).__name__}: {error}".rstrip(". ")
    return ExitCode.FAILED, f"{text}. This is unexpected; --traceback shows where it comes from."
