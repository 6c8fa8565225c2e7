"""Retries that wait for their time: one heap, one alarm.

Invariants, between any two steps:

- A record is here from `add` until its time has come, and is then released once; or until its assignment is forgotten.
- While records wait an alarm is set, for when the first of them is due, or before.
"""

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterator
from itertools import count

from octopus import invariants
from octopus.events import StoredRecord
from octopus.runner.assignment import Assignment

FARTHEST_ALARM = 86_400.0
"""Seconds; a retry that is further away (for ever, even) is looked at once a day. uvloop cannot count beyond years."""

ROUNDING = 0.002
"""Seconds; uvloop counts whole milliseconds."""


@invariants.hold_after("add", "forget", "take", "hasten", "clear", "_ring")
class Delays:
    """Keeps records until their next attempt is due.

    Args:
        loop: Whose clock counts.
        release: Takes each record when its time has come, with its assignment and attempt.
        released: Called after one or more were.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        release: Callable[[tuple[Assignment, StoredRecord, int]], None],
        released: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._release = release
        self._released = released
        self._waiting: list[tuple[float, int, Assignment, StoredRecord, int]] = []  # a heap
        self._sequence = count()
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[Assignment, StoredRecord, int]]:
        return (entry[2:] for entry in self._waiting)

    @property
    def next_due(self) -> float | None:
        """When the next one is due, in loop time."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, after: float, assignment: Assignment, record: StoredRecord, attempt: int) -> None:
        """Keep a record for `after` seconds, at least."""
        due_at = self._loop.time() + max(0.0, after)
        heapq.heappush(self._waiting, (due_at, next(self._sequence), assignment, record, attempt))
        if self._waiting[0][0] == due_at:
            self._set_alarm(due_at)

    def forget(self, assignments: Collection[Assignment]) -> None:
        """Drop the records of these assignments."""
        self._waiting = [entry for entry in self._waiting if entry[2] not in assignments]
        heapq.heapify(self._waiting)

    def take(self, assignments: Collection[Assignment]) -> list[tuple[Assignment, StoredRecord, int]]:
        """Give up the records of these assignments, with their attempts."""
        taken = [entry[2:] for entry in self._waiting if entry[2] in assignments]
        self.forget(assignments)
        return taken

    def hasten(self, assignments: Collection[Assignment]) -> None:
        """Let the records of these assignments be due now."""
        now = self._loop.time()
        self._waiting = [(now, *entry[1:]) if entry[2] in assignments else entry for entry in self._waiting]
        heapq.heapify(self._waiting)
        if self._waiting:
            self._set_alarm(self._waiting[0][0])

    def clear(self) -> None:
        """Drop everything."""
        self._waiting.clear()
        if self._alarm is not None:
            self._alarm.cancel()

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(min(at, self._loop.time() + FARTHEST_ALARM), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._loop.time()
        before = len(self._waiting)
        while self._waiting and self._waiting[0][0] <= now:
            _, _, assignment, record, attempt = heapq.heappop(self._waiting)
            self._release((assignment, record, attempt))
        if self._waiting:
            self._set_alarm(self._waiting[0][0])
        if len(self._waiting) < before:
            self._released()

    def check(self) -> None:
        """Assert the invariants."""
        if self._waiting:
            assert self._alarm is not None
            assert not self._alarm.cancelled()
            assert self._alarm.when() <= max(self._waiting[0][0], self._loop.time()) + ROUNDING
