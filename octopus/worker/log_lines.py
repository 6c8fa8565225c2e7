"""Log records as JSON, one object per line, and what the last line of a run says to machines.

What a record says to people is its message. Fields for machines come with it as `extra={"fields": …}`.
"""

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from octopus.text import printable_json
from octopus.worker.parent import WORKER_VARIABLE
from octopus.worker.status import WorkerStatus


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with its fields."""
        exception = self.formatException(record.exc_info) if record.exc_info else None
        fields = getattr(record, "fields", {})
        return json_line(record.created, record.levelname, record.name, record.getMessage(), fields, exception)


def json_line(
    time: float,
    level: str,
    logger: str,
    message: str,
    fields: Mapping[str, Any],
    exception: str | None = None,
) -> str:
    """Return an entry of a log as JSON.

    Args:
        time: In seconds since the epoch.
        level: `INFO`, for example.
        logger: Who says it.
        message: What people read.
        fields: What machines read.
        exception: With its traceback.
    """
    entry: dict[str, Any] = {"time": timestamp(time), "level": level.lower(), "logger": logger, "message": message}
    if number := os.environ.get(WORKER_VARIABLE):
        entry["worker"] = int(number)
    if exception is not None:
        entry["exception"] = exception
    return printable_json(msgspec.json.encode({**fields, **entry}).decode())


def timestamp(seconds: float) -> str:
    """Return a time as text: UTC, ISO 8601, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def end_fields(code: int, reason: str, status: WorkerStatus | None = None) -> dict[str, Any]:
    """Return the fields of a run's last line.

    Args:
        code: How the process ends.
        reason: Why it ends, in one word or two.
        status: How the worker left; None where it had not begun.
    """
    fields: dict[str, Any] = {"exit_code": int(code), "reason": reason}
    if status is None:
        return fields
    groups = status.groups
    return {
        **fields,
        "seconds": round(status.uptime, 3),
        "done": sum(group.done for group in groups),
        "skipped": sum(group.skipped for group in groups),
        "retried": sum(group.retried for group in groups),
        "deferred": sum(group.deferred for group in groups),
        "dead": sum(group.dead for group in groups),
        "lost": sum(group.stranded for group in groups),
        "left": None if any(group.lag is None for group in groups) else sum(group.lag or 0 for group in groups),
        "stopped": [group.group for group in groups if group.stopped],
        "failed": [group.group for group in groups if group.failure and not group.stopped],
        "unreadable": [each for group in groups for each in group.unreadable],
    }


__all__ = ["JsonFormatter", "end_fields", "json_line", "timestamp"]
