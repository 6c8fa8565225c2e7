"""Outputs that go to a producer together, and what became of each: stored, refused for good, or left to be sent again.

Invariants, between any two steps, of a publication that has come back from the producer:

- Each message is in one place: stored, refused, left, or dropped because its assignment is closed.
- A waiter is answered once its message is stored or refused, and cancelled when it is dropped.
- A run of a handler is told once of what is refused of it, however many of its messages are.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from octopus import invariants
from octopus.errors import ConnectionFailed, OctopusError, TransportError
from octopus.events import Published, StoredRecord
from octopus.transports.base import Outgoing
from octopus.unacknowledged import Unacknowledged


class Origin(Protocol):
    """An attempt, as far as its outputs need it."""

    @property
    def unacknowledged(self) -> Unacknowledged:
        """What of its assignment is not acknowledged."""
        ...

    def refuse(self, stored: StoredRecord, error: BaseException) -> None:
        """Hear that an output of a record, or batch, is refused for good."""
        ...


@invariants.hold_after("note", "unfinished")
class Publication:
    """Outputs that go out together.

    Attributes:
        number: Its own.
        messages: In order.
        origins: Of each, whose it is.
        records: Of each, the record or batch.
        size_bytes: Of their keys, values and headers.
        waiters: Futures of those that a handler may wait for, by their place.
        left: Places of those that are not stored; None while they are on their way.
        error: Why.
        future: The producer's.
    """

    __slots__ = (
        "_refused",
        "error",
        "future",
        "left",
        "messages",
        "number",
        "origins",
        "records",
        "size_bytes",
        "waiters",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[Outgoing] = []
        self.origins: list[Origin] = []
        self.records: list[StoredRecord] = []
        self.size_bytes = 0
        self.waiters: dict[int, asyncio.Future[Published]] = {}
        self.left: list[int] | None = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[list[Published]] | None = None
        self._refused: set[tuple[int, int]] = set()

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is left."""
        return self.left is not None and not self.left

    def note(self, places: Sequence[int], future: "asyncio.Future[list[Published]]") -> None:
        """Note what became of messages."""
        self.error = error = error_of(future)
        if error is None and not self.waiters:
            self.left = []
            return
        stored: Sequence[Published | None] = future.result() if error is None else stored_of(error, len(places))
        self.left = []
        for at, published in zip(places, stored, strict=True):
            if published is None:
                self.left.append(at)
            else:
                self.store(at, published)

    def unfinished(self) -> list[int]:
        """Return the places of what is left, without that of assignments that are closed: their records come again."""
        left = []
        for at in self.left or ():
            if self.origins[at].unacknowledged.is_open:
                left.append(at)
            elif at in self.waiters:
                self.waiters[at].cancel()
        self.left = left
        return left

    def store(self, at: int, published: Published) -> None:
        """Tell who waits for a message where it is stored."""
        if (waiter := self.waiters.get(at)) is not None and not waiter.done():
            waiter.set_result(published)

    def refuse(self, at: int, error: BaseException | None = None) -> None:
        """Make a message that is refused for good its record's failure, once for each run."""
        error = error or self.error
        assert error is not None
        if (waiter := self.waiters.get(at)) is not None and not waiter.done():
            waiter.set_exception(error)
        origin, stored = self.origins[at], self.records[at]
        if (run := (id(origin), id(stored))) not in self._refused:
            self._refused.add(run)
            origin.refuse(stored, error)

    def check(self) -> None:
        """Assert the invariants, as far as they can be seen from here."""
        assert len(self.messages) == len(self.origins) == len(self.records)
        if self.left is not None:
            assert self.left == sorted({*self.left} & {*range(len(self.messages))})
            assert all(waiter.done() for at, waiter in self.waiters.items() if at not in self.left)


def error_of(future: "asyncio.Future[Any]") -> BaseException | None:
    """Return why messages that were queued together are not all stored; None when they are."""
    return ConnectionFailed("the producer was closed") if future.cancelled() else future.exception()


def stored_of(error: BaseException, count: int) -> Sequence[Published | None]:
    """Return where messages were stored, as far as an error says; None for each that was not."""
    stored = error.published if isinstance(error, OctopusError) else None
    return stored if stored is not None else [None] * count


def is_passing(error: BaseException | None) -> bool:
    """Tell whether the same messages may be taken later."""
    return isinstance(error, TransportError) and error.retryable
