"""Retries that wait for their time: one heap, one alarm."""

import asyncio
import heapq
from collections.abc import Callable, Collection
from itertools import count

from octopus.events import StoredRecord
from octopus.runner.generation import Generation

FARTHEST_ALARM = 86_400.0
"""Seconds; a retry that is further away (for ever, even) is looked at once a day. uvloop cannot count beyond years."""


class Delays:
    """Keeps records until their next attempt is due.

    Args:
        loop: Whose clock counts.
        release: Takes each record when its time has come, with its generation and attempt.
        released: Called after one or more were.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        release: Callable[[tuple[Generation, StoredRecord, int]], None],
        released: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._release = release
        self._released = released
        self._waiting: list[tuple[float, int, Generation, StoredRecord, int]] = []  # a heap
        self._sequence = count()
        self._alarm: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_due(self) -> float | None:
        """When the next one is due, in loop time."""
        return self._waiting[0][0] if self._waiting else None

    def add(self, after: float, generation: Generation, record: StoredRecord, attempt: int) -> None:
        """Keep a record for `after` seconds, at least."""
        due_at = self._loop.time() + max(0.0, after)
        heapq.heappush(self._waiting, (due_at, next(self._sequence), generation, record, attempt))
        if self._waiting[0][0] == due_at:
            self._set_alarm(due_at)

    def forget(self, generations: Collection[Generation]) -> None:
        """Drop the records of these generations."""
        self._waiting = [entry for entry in self._waiting if entry[2] not in generations]
        heapq.heapify(self._waiting)

    def take(self, generations: Collection[Generation]) -> list[tuple[Generation, StoredRecord, int]]:
        """Give up the records of these generations, with their attempts."""
        taken = [entry[2:] for entry in self._waiting if entry[2] in generations]
        self.forget(generations)
        return taken

    def hasten(self, generations: Collection[Generation]) -> None:
        """Let the records of these generations be due now."""
        now = self._loop.time()
        self._waiting = [(now, *entry[1:]) if entry[2] in generations else entry for entry in self._waiting]
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
            _, _, generation, record, attempt = heapq.heappop(self._waiting)
            self._release((generation, record, attempt))
        if self._waiting:
            self._set_alarm(self._waiting[0][0])
        if len(self._waiting) < before:
            self._released()
