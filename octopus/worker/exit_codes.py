"""How a worker process ends: its exit code, the words for it, and what its last line says to machines."""

import signal
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from octopus.errors import HandlerStopped, OctopusError
from octopus.worker.log_lines import end_fields
from octopus.worker.status import WorkerStatus, unreadable_of


class ExitCode(IntEnum):
    """How a process ends. Documented in docs/operating.md."""

    OK = 0
    FAILED = 1
    CONFIGURATION = 2
    UNREACHABLE = 3
    PROCESSING_STOPPED = 4
    INTERRUPTED = 130


REASONS: dict[int, str] = {
    ExitCode.CONFIGURATION: "configuration",
    ExitCode.UNREACHABLE: "unreachable",
    ExitCode.PROCESSING_STOPPED: "processing stopped",
}
"""What an exit code means, in the JSON of a run's last line; others have failed."""


def exit_code(failures: Sequence[BaseException], status: WorkerStatus) -> ExitCode:
    """Return what tells the truth about a run.

    Args:
        failures: Why groups ended, and what else went wrong.
        status: How the worker left.
    """
    if any(isinstance(failure, HandlerStopped) for failure in failures) or unreadable_of(status):
        return ExitCode.PROCESSING_STOPPED
    if any(isinstance(failure, OctopusError) for failure in failures):
        return ExitCode.UNREACHABLE
    return ExitCode.FAILED if failures or any(group.stranded for group in status.groups) else ExitCode.OK


def last_fields(code: int, status: WorkerStatus | None = None, is_caught_up: bool = False) -> dict[str, Any]:
    """Return what comes with the log record of a run's last line.

    Args:
        code: How the process ends.
        status: How the worker left; None where it had not begun.
        is_caught_up: Whether it ended because there was nothing left to do.
    """
    well = "caught up" if is_caught_up else "stopped"
    return {"fields": end_fields(code, REASONS.get(code, "failed") if code else well, status)}


def spell(code: int) -> str:
    """Say how a process ended, from its return code: a negative one is a signal."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
