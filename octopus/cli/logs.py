"""Log records on standard error: coloured lines above the live status, plain lines, or JSON."""

import logging
import os
import sys
from datetime import datetime

from rich.console import Console
from rich.text import Text

from octopus.config import LogSettings
from octopus.logs import LineFormatter, show, traceback_of
from octopus.text import block
from octopus.worker.log_lines import JsonFormatter, timestamp
from octopus.worker.parent import WORKER_VARIABLE

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
    else:
        handler = logging.StreamHandler(sys.stderr)
        number = os.environ.get(WORKER_VARIABLE)
        prefix = f"[{number}] " if number else ""
        handler.setFormatter(_Plain(f"{prefix}%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    show(handler, settings.level.upper())


class _Plain(LineFormatter):
    """`2026-01-31T12:00:00.123Z INFO octopus.worker: …`."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return timestamp(record.created)


class _Lines(logging.Handler):
    """Prints on a console: time, level, message; the logger's name only where it is not ours."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._console.print(self._line(record), soft_wrap=True)
        except Exception:  # noqa: BLE001 - logging's own rule: a log line never breaks the program
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> Text:
        number = os.environ.get(WORKER_VARIABLE)
        name = "" if record.name.startswith("octopus") else f"{record.name}: "
        line = Text.assemble(
            (f"[{number}] " if number else "", "cyan"),
            (f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} ", "dim"),
            (f"{record.levelname.lower():<8}", STYLES.get(record.levelname, "")),
            block(f"{name}{record.getMessage()}"),
        )
        if record.exc_info:
            line.append(f"\n{traceback_of(record)}", style="dim")
        return line
