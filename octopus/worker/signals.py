"""Stop signals: one stop that arrives several times is one stop; a second one that is meant ends at once."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

from octopus.early_stop import replace_handler

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

SAME_STOP = 1.0
"""Seconds after the first stop signal in which others are the same stop: GNU `timeout` signals its child and then its group,
systemd every process of a unit, a terminal its foreground group, and a parent passes on what its children have got already.
"""


def is_same_stop(first: float, now: float) -> bool:
    """Tell whether a signal at `now` is the stop that began at `first`, both in seconds."""
    return now - first < SAME_STOP


class StopSignals:
    """Listens to SIGTERM and SIGINT while a block lasts, and to repetitions of a stop for a moment longer.

    Not asyncio's own signal handlers: a handler of ours that blocks the loop must not block the second signal.

    A fork, a process pool's for example, inherits them but is not stopped by them: SIGTERM means there what it meant before, since
    `Process.terminate` sends it; and the first SIGINT nothing, since a terminal sends it to all, and we may still wait for what
    the fork does.

    Args:
        on_first: Called with the signal's number when a stop begins.
        on_second: Called at a second stop, which is not to wait.

    Attributes:
        stopped_at: When the stop began, in seconds of `time.monotonic`, or None.
    """

    def __init__(self, on_first: Callable[[int], None], on_second: Callable[[int], None]) -> None:
        self._on_first = on_first
        self._on_second = on_second
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()
        self.stopped_at: float | None = None

    def __enter__(self) -> Self:
        self._before = {number: replace_handler(number, self._on_signal) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if self.stopped_at is None else partial(self._on_late_signal, before))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_fork = os.getpid() != self._process
        if is_fork and number == signal.SIGTERM:
            _mean(self._before[signal.SIGTERM], number, frame)
        elif self.stopped_at is None:
            self.stopped_at = now
            if not is_fork:
                self._on_first(number)
        elif not is_same_stop(self.stopped_at, now):
            self._on_second(number)

    def _on_late_signal(self, before: Any, number: int, frame: FrameType | None) -> None:
        assert self.stopped_at is not None
        if not is_same_stop(self.stopped_at, time.monotonic()):
            _mean(before, number, frame)


def _mean(before: Any, number: int, frame: FrameType | None) -> None:
    """Let a signal mean what it meant before, from now on."""
    signal.signal(number, before)
    if callable(before):
        before(number, frame)
    elif before == signal.SIG_DFL:
        os.kill(os.getpid(), number)


def ignore_stop_signals() -> None:
    """Let nothing change the exit code of a process that is about to end."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
