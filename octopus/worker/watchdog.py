"""Notices a handler that blocks the event loop, and names it.

A thread looks at the loop's heartbeat. A loop that does not turn cannot report itself, and "something is slow" does not
help: the report has the handler's name and the line it stands on.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from octopus.logs import get_logger

logger = get_logger("octopus.worker")

OURS = ("octopus/runner/runner.py", "octopus/pipeline/handling.py", "octopus/pipeline/boundary.py")


class LoopWatchdog:
    """Watches the loop it is started in, from a thread of its own.

    Args:
        limit: Seconds without a turn of the loop that are reported; 0 for never.
        running: Names the handlers that are running now.
    """

    def __init__(self, limit: float, running: Callable[[], list[str]]) -> None:
        self._limit = limit
        self._running = running
        self._beat = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self.reports = 0

    def start(self) -> None:
        """Begin, in the running loop; without a limit there is nothing to watch."""
        if not self._limit:
            return
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._pulse()
        self._thread = threading.Thread(target=self._watch, name="octopus watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()

    def _pulse(self) -> None:
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(self._limit / 4, self._pulse)

    def _watch(self) -> None:
        reported = 0.0
        while not self._stop.wait(self._limit / 4):
            beat = self._beat
            blocked = time.monotonic() - beat
            if blocked > self._limit and beat != reported:
                reported = beat
                self.reports += 1
                self._report(blocked)

    def _report(self, blocked: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        names = ", ".join(sorted(set(self._running()))) or "no handler"
        logger.warning(
            "the event loop has not turned for %.1f s while %s is running, at %s. Nothing else runs meanwhile: await "
            "instead of blocking, or make the handler a plain `def` so that it runs in a thread.",
            blocked,
            names,
            _where(frame) if frame is not None else "an unknown place",
        )


def _where(frame: FrameType) -> str:
    """Return the innermost line, and the handler's own line if that is another."""
    stack = traceback.extract_stack(frame)
    lines = [f"{entry.filename}:{entry.lineno} in {entry.name}" for entry in stack]
    last_ours = max((index for index, entry in enumerate(stack) if entry.filename.endswith(OURS)), default=-1)
    handler = lines[last_ours + 1] if last_ours + 1 < len(lines) else lines[-1]
    return handler if handler == lines[-1] else f"{handler} (now {lines[-1]})"
