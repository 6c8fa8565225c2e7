"""What `SynchronousPublisher.send` has queued: bounded in bytes, filled by any thread, emptied by one loop.

Invariants, whenever its lock is free:

- An event is in one part, in the order in which it was put: in `_filling`, which takes events; in `_full`, which the loop has not
  taken; in `_open`, which it has; or its part is settled. The numbers of parts increase in that order, oldest first.
- `_size` is the size of all parts that are not settled: at most the limit, or one event.
- While events wait for the loop, a call that takes them is on its way to it.
- `_first` is the first of the `_failed` events that no caller has been told of.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from octopus import invariants
from octopus.errors import ConfigurationError, ConnectionFailed, QueueFull, TransportError
from octopus.events import Headers
from octopus.logs import get_logger
from octopus.transports.base import Outgoing
from octopus.transports.queueing import Queue, Queued

logger = get_logger("octopus.publishing")

QUEUE_BYTES = 32 * 1024 * 1024
"""What may be queued or on its way, unless the caller says otherwise."""

PART_BYTES = 256 * 1024
"""Events are queued in parts of this size: room for new ones is made part by part."""

OVERHEAD = 200
"""Bytes that an event takes besides its key, value and headers."""


class Undelivered(msgspec.Struct, frozen=True):
    """An event that was sent and is not delivered.

    Attributes:
        topic: Where to.
        value: As it was to be stored.
        key: Likewise.
        headers: Likewise.
        error: Why. When its `retryable` is set, the event may be stored all the same.
    """

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    error: BaseException


class _Part:
    """Events that are queued together."""

    __slots__ = ("future", "messages", "number", "size")

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[Outgoing] = []
        self.size = 0
        self.future: Queued | None = None


def _undelivered(message: Outgoing, error: BaseException) -> Undelivered:
    """Return an event for callers; its headers are its own, where events that were given the same ones have a list in common."""
    return Undelivered(message.topic, message.value, message.key, (*message.headers,), error)


@invariants.hold_after("put", "wait", "failure", "close", "give_up", "_take", "_settle")
class SendQueue:
    """Takes events from any thread and has them queued by a loop in another: one call wakes the loop for all that come until it looks.

    Its lock guards all of its state. No callback runs under it.

    Args:
        limit: Bytes at which `put` waits.
        loop: Whose thread takes what is here.
        queue: Queues events there, as `Producer.queue`.
        on_error: Told of each event that is not delivered, there.
        thread: The id of its thread, which must not wait here.
        name: Of its app, for errors.
    """

    def __init__(
        self,
        limit: int,
        loop: asyncio.AbstractEventLoop,
        queue: Queue,
        on_error: Callable[[Undelivered], object] | None,
        thread: int | None,
        name: str,
    ) -> None:
        self._limit = limit
        self._loop = loop
        self._queue = queue
        self._on_error = on_error
        self._thread = thread
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0  # threads that wait for a change
        self._size = 0
        self._filling = _Part(0)
        self._full: list[_Part] = []
        self._open: dict[int, _Part] = {}
        self._is_woken = False
        self._is_closed = False
        self._failed = 0
        self._first: Undelivered | None = None

    @property
    def open(self) -> int:
        """How many events are not settled."""
        with self._lock:
            return sum(len(part.messages) for part in (*self._open.values(), *self._full, self._filling))

    def put(self, message: Outgoing, timeout: float | None) -> None:
        """Queue an event; wait up to `timeout` seconds for room.

        Raises:
            QueueFull: There was none.
            ConfigurationError: The queue is closed.
        """
        value, key = message.value, message.key
        size = OVERHEAD + (len(value) if value else 0) + (len(key) if key else 0)
        if message.headers:
            size += sum(len(name) + len(content or b"") for name, content in message.headers)
        with self._lock:
            if self._size + size > self._limit and self._size:
                self._wait_for_room(size, timeout)
            if self._is_closed:
                raise ConfigurationError(
                    f"The synchronous publisher of {self._name} was closed: this event is not sent."
                )
            self._size += size
            part = self._filling
            part.messages.append(message)
            part.size += size
            if part.size >= PART_BYTES:
                self._full.append(part)
                self._filling = _Part(part.number + 1)
            if not self._is_woken:
                self._is_woken = True
                self._loop.call_soon_threadsafe(self._take)

    def _wait_for_room(self, size: int, timeout: float | None) -> None:
        def has_room() -> bool:
            return self._is_closed or not self._size or self._size + size <= self._limit

        waits = timeout != 0 and threading.get_ident() != self._thread
        if waits:
            self._waiting += 1
            try:
                waits = self._changed.wait_for(has_room, timeout)
            finally:
                self._waiting -= 1
        if not waits:
            raise QueueFull(
                f"The synchronous publisher of {self._name} has {self._size} bytes queued or on their way, of at most {self._limit}"
                + (f", and no room after {timeout:g} s" if timeout else "")
                + ": this event is not sent. Check that the broker runs, send less, or give it more queue_bytes."
            )

    def wait(self, timeout: float | None) -> bool:
        """Wait until all is settled that was put before; tell whether it is."""
        with self._lock:
            last = self._filling.number
            if self._filling.messages:  # what comes from now on is in another part, and not waited for
                self._full.append(self._filling)
                self._filling = _Part(last + 1)
            else:
                last -= 1

            def is_settled() -> bool:
                return not self._full_until(last) and next(iter(self._open), last + 1) > last

            self._waiting += 1
            try:
                return self._changed.wait_for(is_settled, timeout)
            finally:
                self._waiting -= 1

    def _full_until(self, last: int) -> bool:
        return bool(self._full) and self._full[0].number <= last

    def failure(self) -> TransportError | None:
        """Return an error for what was not delivered since the last call."""
        with self._lock:
            failed, first, self._failed, self._first = self._failed, self._first, 0, None
        if first is None:
            return None
        events = "1 event is" if failed == 1 else f"{failed} events are"
        error = TransportError(
            f"{events} not delivered that the synchronous publisher of {self._name} has sent; the first, to {first.topic!r}: {first.error}",
            retryable=getattr(first.error, "retryable", False),
        )
        error.__cause__ = first.error
        return error

    def close(self) -> None:
        """Take nothing any more; who waits for room is told."""
        with self._lock:
            self._is_closed = True
            self._changed.notify_all()

    # ── in the thread of the loop ─────────────────────────────────────────────────────────────────────────────────

    async def give_up(self, after: float) -> None:
        """Wait no more for what is not settled."""
        self._take()
        late = ConnectionFailed(
            f"it was not acknowledged within the {after:g} s that closing may take, and may yet be stored. Check that the broker runs."
        )
        for part in [*self._open.values()]:
            if part.future is not None and part.future.cancel():
                self._settle(part, part.messages, late)
        await asyncio.sleep(0)  # what was answered in this very turn settles as it was

    def _take(self) -> None:
        with self._lock:
            parts, self._full = self._full, []
            if self._filling.messages:
                parts.append(self._filling)
                self._filling = _Part(self._filling.number + 1)
            self._is_woken = False
            for part in parts:
                self._open[part.number] = part
        for part in parts:
            part.future = self._queue(part.messages)
            part.future.add_done_callback(lambda future, part=part: self._answered(part, future))  # type: ignore[misc]

    def _answered(self, part: _Part, future: Queued) -> None:
        if future.cancelled():
            return
        if (error := future.exception()) is None:
            self._settle(part, (), None)
            return
        published = getattr(error, "published", None) or [None] * len(part.messages)
        failed = [message for message, stored in zip(part.messages, published, strict=True) if stored is None]
        self._settle(part, failed, error)

    def _settle(self, part: _Part, failed: Sequence[Outgoing], error: BaseException | None) -> None:
        undelivered = [] if error is None else [_undelivered(message, error) for message in failed]
        with self._lock:
            del self._open[part.number]
            self._size -= part.size
            self._failed += len(failed)
            if undelivered and self._first is None:
                self._first = undelivered[0]
            if self._waiting:
                self._changed.notify_all()
        if self._on_error is not None:
            for each in undelivered:
                self._tell(self._on_error, each)

    def _tell(self, on_error: Callable[[Undelivered], Any], undelivered: Undelivered) -> None:
        try:
            on_error(undelivered)
        except Exception:
            logger.exception("on_error of the synchronous publisher of %s failed", self._name)

    def check(self) -> None:
        """Assert the invariants."""
        with self._lock:
            parts = [*self._open.values(), *self._full, self._filling]
            if len(parts) > invariants.SMALL:
                return
            numbers = [part.number for part in parts]
            assert numbers == sorted({*numbers})
            assert self._size == sum(part.size for part in parts)
            assert self._size <= self._limit or sum(len(part.messages) for part in parts) == 1
            assert self._is_woken or not (self._full or self._filling.messages)
            assert (self._first is None) == (not self._failed)
