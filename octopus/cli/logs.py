"""Log records on standard error: coloured lines above the live status, plain lines, or JSON."""

import logging
import os
import re
import sys
import time
from datetime import datetime
from typing import TextIO

from rich.console import Console
from rich.text import Text

from octopus.cli.failures import exit_code
from octopus.cli.screen import print_traceback
from octopus.config import LogSettings
from octopus.logs import LineFormatter, show, traceback_of
from octopus.text import block, visible
from octopus.worker.exit_codes import last_fields
from octopus.worker.log_lines import JsonFormatter, json_line, timestamp
from octopus.worker.parent import WORKER_VARIABLE
from octopus.worker.reports import is_looked_at

_LOG_LINE = re.compile(r"(\d\d:\d\d:\d\d) (debug|info|warning|error|critical) ")

STYLES = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


def configure_logs(settings: LogSettings, console: Console) -> None:
    """Send log records to standard error, unless the app has set up logging itself.

    Args:
        settings: The least level, and text or JSON.
        console: Where lines are printed when a person looks, so that a live status stays below them.
    """
    handler: logging.Handler
    if settings.format == "json":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
    elif console.is_terminal:
        handler = _Lines(console)
    elif is_looked_at(os.environ):
        handler = _LinesForOurs(sys.stderr)
    else:
        handler = logging.StreamHandler(sys.stderr)
        number = os.environ.get(WORKER_VARIABLE)
        prefix = f"[{number}] " if number else ""
        handler.setFormatter(_Plain(f"{prefix}%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    show(handler, settings.level.upper())


def log_error(error: Exception, *, has_traceback: bool) -> int:
    """Write why a run ends as the last line of a log in JSON; return its exit code.

    Args:
        error: Why.
        has_traceback: Whether to show where it comes from.
    """
    if has_traceback:
        print_traceback(error)
    code, sentence = exit_code(error)
    fields = last_fields(code)["fields"]
    sys.stderr.write(f"{json_line(time.time(), 'ERROR', 'octopus', sentence, fields)}\n")
    return code


class _Plain(LineFormatter):
    """`2026-01-31T12:00:00.123Z INFO octopus.worker: …`."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return timestamp(record.created)


class _LinesForOurs(logging.StreamHandler[TextIO]):
    """Prints what `_Lines` does, for the supervisor, which puts number and colours to it."""

    def format(self, record: logging.LogRecord) -> str:
        return line_of(record).plain


class _Lines(logging.Handler):
    """Prints on a console: time, level, message; the logger's name only where it is not ours."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            number = os.environ.get(WORKER_VARIABLE)
            self._console.print(
                Text.assemble((f"[{number}] " if number else "", "cyan"), line_of(record)), soft_wrap=True
            )
        except Exception:  # noqa: BLE001 - logging's own rule: a log line never breaks the program
            self.handleError(record)


def line_of(record: logging.LogRecord) -> Text:
    """Return a log record as people read it."""
    name = "" if record.name.startswith("octopus") else f"{record.name}: "
    line = Text.assemble(
        (f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} ", "dim"),
        (f"{record.levelname.lower():<8}", STYLES.get(record.levelname, "")),
        block(f"{name}{record.getMessage()}"),
    )
    if record.exc_info:
        line.append(f"\n{traceback_of(record)}", style="dim")
    return line


def line_of_worker(number: int, text: str) -> Text:
    """Return a line that a worker printed, made harmless; one of its log has its colours again.

    Args:
        number: Of the worker.
        text: Without the line's end.
    """
    line = Text.assemble((f"[{number}] ", "cyan"), visible(text.expandtabs(4)))
    if (found := _LOG_LINE.match(text)) is not None:
        begin = len(f"[{number}] ")
        line.stylize("dim", begin, begin + found.end(1))
        line.stylize(STYLES.get(found[2].upper(), ""), begin + found.start(2), begin + found.end(2))
    return line
