"""The time of a simulation: processes that wait, and stations that serve them."""

import heapq
import itertools
import math
from collections.abc import Generator

Process = Generator["float | Signal", None, None]
"""Yields seconds to wait for, or a signal."""


class Timeline:
    """Runs processes in the order of their times; what happens at the same time, in the order in which it was asked for.

    Attributes:
        now: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Process]] = []
        self._order = itertools.count()

    def start(self, process: Process, after: float = 0.0) -> None:
        """Let a process begin, or go on."""
        heapq.heappush(self._due, (self.now + after, next(self._order), process))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._due and self._due[0][0] <= until:
            self.now, _, process = heapq.heappop(self._due)
            step = next(process, None)
            if isinstance(step, Signal):
                step.waiting.append(process)
            elif step is not None:
                self.start(process, step)
        self.now = until


class Signal:
    """Processes wait for it; whoever fires it wakes them all."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.waiting: list[Process] = []

    def fire(self) -> None:
        """Wake all that wait now."""
        woken, self.waiting = self.waiting, []
        for process in woken:
            self._timeline.start(process)


class Station:
    """Cores, a link or a disk: what comes first is served first.

    Args:
        timeline: Whose time it takes.
        servers: How many pieces of work it does at once.
        speed: Units of work that one server does in a second; infinite for a station that never makes anybody wait.
    """

    def __init__(self, timeline: Timeline, servers: int = 1, speed: float = 1.0) -> None:
        self._timeline = timeline
        self._free = [0.0] * servers
        self._speed = speed
        self._since = 0.0
        self._served = 0.0

    def serve(self, work: float) -> float:
        """Take work; return the seconds until it is done, the wait for others included."""
        now = self._timeline.now
        if self._speed == math.inf:
            return 0.0
        begin = max(now, heapq.heappop(self._free))
        end = begin + work / self._speed
        heapq.heappush(self._free, end)
        self._served += max(0.0, end - max(begin, self._since))
        return end - now

    def reset(self) -> None:
        """Begin to measure how busy it is."""
        self._since = self._timeline.now
        # What is under way or promised already falls into the time that is measured.
        self._served = sum(max(0.0, free - self._since) for free in self._free)

    @property
    def utilisation(self) -> float:
        """The part of its servers that was busy since `reset`, up to now."""
        took = self._timeline.now - self._since
        if self._speed == math.inf or took <= 0:
            return 0.0
        later = sum(max(0.0, free - self._timeline.now) for free in self._free)
        return (self._served - later) / (took * len(self._free))
