"""Loggers of ours, and how they get along with those of the program around them.

Arguments of our log calls may come from outside (an exception's text, a topic's name): they are made harmless here, before any
handler sees it, tracebacks included. And a program that sets up logging disables, by default, every logger there is
(`logging.config.dictConfig`); ours stay, because they report events that are not handled.
"""

import logging
import sys
from typing import Any

from octopus.text import INDENT, block, visible

ENGINE = "octopus.transports.aiokafka"
"""What the client library says of our clients; it has a level of its own (`transports/kafka/engine_log.py`)."""

QUIET = (ENGINE, "watchfiles")
"""Loggers whose records are either repeated by ours in better words, or noise."""

_console_streams = ("stdout", "stderr", "__stdout__", "__stderr__")


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a part of Octopus.

    Args:
        name: It begins with `octopus`.
    """
    logger = logging.getLogger(name)
    logger.__class__ = _Logger
    return logger


class _Logger(logging.Logger):
    """Cannot be disabled by accident, and passes on harmless text only. Its level decides which records pass."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _value: bool) -> None:
        """Stay enabled."""

    def makeRecord(self, *given: Any, **options: Any) -> logging.LogRecord:  # noqa: N802 - logging's name
        record = super().makeRecord(*given, **options)
        if isinstance(record.args, tuple) and record.args:
            record.args = tuple(map(_harmless, record.args))
        elif not record.args:
            record.msg = block(str(record.msg))
        if record.exc_info:
            record.exc_text = traceback_of(record)  # formatters take it from here
        return record


def _harmless(value: object) -> object:
    if isinstance(value, int | float):
        return value
    try:
        return visible(str(value))
    except Exception:  # noqa: BLE001 - an exception's own code
        return f"({type(value).__name__} whose text cannot be read)"


def traceback_of(record: logging.LogRecord) -> str:
    """Return a record's traceback, each line of it harmless and indented: none can be taken for an entry of the log."""
    if record.exc_text:
        text = record.exc_text
        return text if text.startswith(INDENT) else INDENT + block(text)
    assert record.exc_info
    return INDENT + block(logging.Formatter().formatException(record.exc_info))


class LineFormatter(logging.Formatter):
    """Formats records so that only the first line of each begins at the margin, from any logger."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format all but the traceback."""
        return block(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        if record.exc_info:
            record.exc_text = traceback_of(record)
        return super().format(record)


def show(handler: logging.Handler, level: str) -> None:
    """Let `handler` show log records of `level` and above, ours and the program's.

    A program that has set up logging itself keeps its handlers and levels; if it shows records on the console, ours
    appear there, in its format, and `handler` is not needed.

    Args:
        handler: For standard error.
        level: `INFO`, for example.
    """
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if not getattr(each, "is_ours", False)]
    theirs = [*root.handlers]
    handler.is_ours = True  # type: ignore[attr-defined]
    if not any(map(_is_console, theirs)):
        root.addHandler(handler)
    if not theirs:
        root.setLevel(level)
    ours = logging.getLogger("octopus")
    if ours.level == logging.NOTSET or getattr(ours, "is_set_here", False):
        ours.setLevel(level)
        ours.is_set_here = True  # type: ignore[attr-defined]
    for name in QUIET:
        logger = logging.getLogger(name)
        if logger.level in (logging.NOTSET, logging.CRITICAL):
            logger.setLevel(level if level == "DEBUG" else "CRITICAL")


def prints(handler: logging.Handler) -> bool:
    """Tell whether a handler prints where a person looks: ours does, and one of the app's may."""
    stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
    return getattr(handler, "is_ours", False) or stream in [getattr(sys, name) for name in _console_streams]


def _is_console(handler: logging.Handler) -> bool:
    """Tell whether warnings that a handler gets appear where a person looks."""
    return handler.level <= logging.WARNING and prints(handler)
