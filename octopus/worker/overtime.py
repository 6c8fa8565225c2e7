"""Ends a process whose end takes too long, and one whose parent has gone. In a thread: the event loop may be what hangs."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from octopus.logs import get_logger
from octopus.worker.parent import Parent
from octopus.worker.signals import ignore_stop_signals

logger = get_logger("octopus.worker")

LOOK_EVERY = 0.5
"""Seconds between two looks at the clock."""

REPORT_TIME = 2.0
"""Seconds for the last words: a thread that hangs may hold the lock of a log."""

EXIT_TIME = 5.0
"""Seconds for the interpreter's own end: `atexit`, threads that the app has left behind."""


class Overtime:
    """Looks after the end of this process.

    Args:
        budget: Seconds from `begin` until the process is ended in any case.
        parent: Without it this process is not wanted.
        culprits: Names what still runs, for the log.
    """

    def __init__(self, budget: float, parent: Parent, culprits: Callable[[], list[str]]) -> None:
        self.exit_code = 1
        self._budget = budget
        self._parent = parent
        self._culprits = culprits
        self._began_at: float | None = None
        self._is_over = False

    def watch(self) -> None:
        """Start looking."""
        threading.Thread(target=self._watch, name="octopus overtime", daemon=True).start()

    def begin(self) -> None:
        """Let the time run; may be called from a signal handler, so it takes no lock."""
        if self._began_at is None:
            self._began_at = time.monotonic()

    def call_off(self) -> None:
        """Stop looking."""
        self._is_over = True

    def _watch(self) -> None:
        while not self._is_over:
            time.sleep(LOOK_EVERY)
            self._parent.check()
            if self._began_at is not None and time.monotonic() - self._began_at > self._budget and not self._is_over:
                self._end()

    def _end(self) -> None:
        running = ", ".join(self._culprits()) or "something that does not say its name"
        end_process(
            self.exit_code,
            f"this process did not end within {self._budget:.0f} s and is ended now, because of {running}. "
            "What was not finished will be delivered again.",
        )


def end_soon(code: int) -> None:
    """See that a process that has nothing left to do ends, with this code: no signal changes it, no thread keeps it alive."""
    ignore_stop_signals()

    def end() -> None:
        threads = [
            each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()
        ]
        end_process(code, f"the process ends without waiting for {', '.join(threads) or 'what its exit waits for'}")

    timer = threading.Timer(EXIT_TIME, end)
    timer.daemon = True
    timer.start()


def end_process(code: int, why: str) -> None:
    """End this process at once, with a last line in the log."""

    def report() -> None:
        logger.error("%s", why, extra={"fields": {"exit_code": int(code), "reason": "overtime"}})
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        logging.shutdown()

    last = threading.Thread(target=report, daemon=True)
    last.start()
    last.join(REPORT_TIME)
    os._exit(code)
