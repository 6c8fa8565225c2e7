"""Event patterns as arguments: JSON, or @FILE."""

from pathlib import Path

from octopus.errors import ConfigurationError
from octopus.patterns import Pattern


def read_pattern(text: str | None) -> Pattern | None:
    """Compile the pattern an option gives; None for none. Raises `PatternError`."""
    return None if text is None else Pattern.compile(read_argument(text))


def read_argument(text: str) -> str:
    """Return the text itself, or what the file holds that it names with @.

    Raises:
        ConfigurationError: There is no such file.
    """
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{text[1:]!r} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
