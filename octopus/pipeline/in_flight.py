"""Outputs in flight: handlers do not wait for what they publish, their records do.

What the handlers of a group return goes to the producer in order and together, once per turn of the loop, or at once when it is much. A
record whose outputs are on their way is finished: its lane is free. It settles when they are acknowledged (`unacknowledged.py`).

Where outputs cannot be stored for now, everything behind them waits until they are: what failed is sent again first, in its order, and
only then what came after. One that is refused for good is its record's failure.

Invariants, between any two steps:

- A message is in one place: it is collected, or in a publication of `_flying`, or nothing of its publication is left (`publication.py`).
- Publications that are not acknowledged are in `_flying`, in order, and all before them are. While something is mended, none is added.
- `size_bytes` are the bytes of keys, values and headers of what is collected or in `_flying`; `is_full` says whether they reach the limit.
"""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from octopus import invariants
from octopus.errors import TransportError
from octopus.events import Published, StoredRecord
from octopus.logs import get_logger
from octopus.patience import WAITS, Patience
from octopus.pipeline.publication import Origin, Publication, error_of, is_passing, stored_of
from octopus.transports.base import Outgoing, Producer
from octopus.unacknowledged import Publications

logger = get_logger("octopus.handlers")

FLUSH_COUNT = 500
"""Outputs that are queued at once, without the turn of the loop: so many that one publication more costs them nothing."""

FLUSH_BYTES = 256 * 1024
"""The same in bytes."""


@invariants.hold_after("put", "close", "_flush", "_land", "_pass", "_send_again")
class OutputsInFlight:
    """What the handlers of one group publish, from when they return it until it is acknowledged.

    Args:
        producer: Where to.
        who: Begins the sentences of the log.
        limit: Bytes on their way beyond which handlers wait before they begin with another record.

    Attributes:
        producer: As given.
        publications: Numbers what goes out.
        size_bytes: Of keys, values and headers that are not acknowledged.
        is_full: Whether that is the limit, or more.
    """

    def __init__(self, producer: Producer, who: str, limit: int) -> None:
        self.publications = Publications()
        self.size_bytes = 0
        self.is_full = False
        self.producer = producer
        self._limit = limit
        self._patience = Patience(logger, who, "results")
        self._flying: deque[Publication] = deque()
        self._collected = Publication(1)
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # not that of the handler whose output happens to be the first
        self._mender: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._is_closed = False

    def put(self, origin: Origin, stored: StoredRecord, message: Outgoing) -> None:
        """Collect an output of a record, or batch, behind all others."""
        value, key = message.value, message.key
        size = (len(value) if value is not None else 0) + (len(key) if key is not None else 0)
        if message.headers:
            size += sum(len(name) + len(content or b"") for name, content in message.headers)
        collected = self._collected
        messages = collected.messages
        if not messages:
            self._loop.call_soon(self._flush, context=self._context)
        messages.append(message)
        collected.origins.append(origin)
        collected.records.append(stored)
        origin.unacknowledged.newest = collected.number
        collected.size_bytes += size
        self.size_bytes = size = self.size_bytes + size
        if size >= self._limit:
            self.is_full = True
            self._room.clear()
        if len(messages) >= FLUSH_COUNT or collected.size_bytes >= FLUSH_BYTES:
            self._flush()

    def put_awaited(self, origin: Origin, stored: StoredRecord, message: Outgoing) -> "asyncio.Future[Published]":
        """Do the same and return a future of where it is stored.

        Raises:
            TransportError: Twice the limit is on its way: the handler is to wait now and then.
        """
        if self.size_bytes >= 2 * self._limit:
            raise TransportError(
                f"{self.size_bytes} bytes wait to be acknowledged, and {2 * self._limit} may: await the result of "
                "app.publish_soon(…) now and then, or use app.publish.",
                retryable=True,
            )
        future: asyncio.Future[Published] = self._loop.create_future()
        future.add_done_callback(_look_at)
        collected = self._collected
        collected.waiters[len(collected.messages)] = future
        self.put(origin, stored, message)
        return future

    def size(self) -> int:
        """Return `size_bytes`."""
        return self.size_bytes

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self.is_full:
            await self._room.wait()

    async def gone(self) -> None:
        """Wait until everything is with the producer that was collected, or failed: what comes next overtakes none of it."""
        self._flush()
        while (mender := self._mender) is not None:
            await asyncio.wait([mender])

    async def close(self) -> None:
        """Mend no more, and end all waits: what is not acknowledged now comes again with its record."""
        self._is_closed = True
        mender, self._mender = self._mender, None
        if mender is not None:
            mender.cancel()
            await asyncio.gather(mender, return_exceptions=True)
        for publication in (*self._flying, self._collected):
            for waiter in publication.waiters.values():
                waiter.cancel()
            if publication.future is not None:
                publication.future.cancel()
        self.is_full = False
        self._room.set()

    def _flush(self) -> None:
        """Give the producer what is collected."""
        collected = self._collected
        if not collected.messages or self._mender is not None or self._is_closed:
            return
        self.publications.collecting += 1
        self._collected = Publication(self.publications.collecting)
        self._flying.append(collected)
        collected.future = future = self.producer.queue(collected.messages)
        if future.done():
            self._land(collected, future)
        else:
            future.add_done_callback(partial(self._land, collected), context=self._context)

    def _land(self, publication: Publication, future: "asyncio.Future[list[Published]]") -> None:
        if self._is_closed:
            return
        publication.note([*range(len(publication.messages))], future)
        if publication.left and self._mender is None:
            if len(publication.left) == 1 and not is_passing(publication.error):
                publication.refuse(publication.left.pop())
            else:
                self._mender = self._loop.create_task(self._mend(), name="octopus outputs", context=self._context)
        self._pass()

    def _pass(self) -> None:
        """Let go of publications of which nothing is left."""
        flying, number = self._flying, 0
        while flying and flying[0].is_settled:
            publication = flying.popleft()
            number = publication.number
            self.size_bytes -= publication.size_bytes
        if self.is_full and self.size_bytes < self._limit:
            self.is_full = False
            self._room.set()
        if number:
            self.publications.acknowledge(number)

    # ── what could not be stored ──────────────────────────────────────────────────────────────────────────────────────

    async def _mend(self) -> None:
        """Send what failed again, in order, until nothing of it is left; nothing newer goes out meanwhile."""
        wait, longest = WAITS
        while True:
            if airborne := [each.future for each in self._flying if each.left is None and each.future is not None]:
                await asyncio.wait(airborne)
                continue  # they land first
            failed = [(each, at) for each in self._flying for at in each.unfinished()]
            self._pass()
            if not failed:
                break
            passing = [each.error for each in self._flying if each.left and is_passing(each.error)]
            if passing:
                self._patience.failed(passing[0])  # type: ignore[arg-type]
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
                await self._send_again([failed])
            else:  # which of them is refused, and why, is known only of one that is alone
                await self._send_again([[each] for each in failed])
            if sum(len(each.left or ()) for each in self._flying) < len(failed):
                wait = WAITS[0]
        self._patience.succeeded()
        self._mender = None
        self._flush()

    async def _send_again(self, parts: Sequence[Sequence[tuple[Publication, int]]]) -> None:
        """Queue messages anew, each part as a publication of its own, and note what became of them."""
        sent = [(part, self.producer.queue([publication.messages[at] for publication, at in part])) for part in parts]
        await asyncio.wait([future for _, future in sent])
        for publication in self._flying:
            publication.left, publication.error = [], None
        for part, future in sent:
            error = error_of(future)
            stored: Sequence[Published | None] = future.result() if error is None else stored_of(error, len(part))
            for (publication, at), published in zip(part, stored, strict=True):
                if published is not None:
                    publication.store(at, published)
                elif len(part) == 1 and not is_passing(error):
                    publication.error = publication.error if is_passing(publication.error) else error
                    publication.refuse(at, error)
                else:
                    assert publication.left is not None
                    publication.left.append(at)
                    if not is_passing(publication.error):
                        publication.error = error

    def check(self) -> None:
        """Assert the invariants."""
        if self._is_closed or len(self._flying) > invariants.SMALL:
            return
        flying, collected = self._flying, self._collected
        first = flying[0].number if flying else collected.number
        assert [each.number for each in (*flying, collected)] == [*range(first, self.publications.collecting + 1)]
        assert self.publications.acknowledged == first - 1
        assert self.size_bytes == sum(each.size_bytes for each in (*flying, collected))
        assert self.is_full == (self.size_bytes >= self._limit)


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Look at an error that the handler perhaps never asks for: its record does."""
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
