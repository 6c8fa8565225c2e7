"""Outputs in flight: handlers do not wait for what they publish, their records do.

What the handlers of a group return goes to the producer in order and together, once per turn of the loop, or at once when it is much. A
record whose outputs are on their way is finished: its lane is free. It settles when they are acknowledged (`unacknowledged.py`).

Where outputs cannot be stored for now, everything behind them waits until they are: what failed is sent again first, in its order, and
only then what came after. One that is refused for good is its record's failure.

Invariants, between any two steps:

- A message is in one place: it is collected, or in a publication on its way, stored, refused, or of an assignment that is closed.
- Publications that are not acknowledged are in `_flying`, in order. While something is mended, none is added.
- `size_bytes` are the bytes of keys, values and headers of what is collected or in `_flying`.
"""

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from octopus.claim import Claim
from octopus.errors import ConfigurationError, ConnectionFailed, OctopusError, ResultRefused, TransportError
from octopus.events import Batch, Published, StoredRecord, settles_at
from octopus.logs import get_logger
from octopus.outcomes import Outcome
from octopus.patience import WAITS, Patience
from octopus.publishing import running
from octopus.transports.base import Outgoing, Producer
from octopus.types import BatchOutcome, ConcludeRefused
from octopus.unacknowledged import Publications, Refusal, Unacknowledged

logger = get_logger("octopus.handlers")

FLUSH_COUNT = 500
"""Outputs that are queued at once, without the turn of the loop: so many that one publication more costs them nothing."""

FLUSH_BYTES = 256 * 1024
"""The same in bytes."""


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
        is_full: Whether that is more than the limit.
    """

    def __init__(self, producer: Producer, who: str, limit: int) -> None:
        self.publications = Publications()
        self.size_bytes = 0
        self.is_full = False
        self.producer = producer
        self._limit = limit
        self._patience = Patience(logger, who, "results")
        self._flying: deque[_Publication] = deque()
        self._collected = _Publication(1)
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # not that of the handler whose output happens to be the first
        self._mender: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._is_closed = False

    def put(self, attempt: "Attempt", stored: StoredRecord, message: Outgoing) -> None:
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
        collected.attempts.append(attempt)
        collected.records.append(stored)
        attempt.outlet.unacknowledged.newest = collected.number
        collected.size_bytes += size
        self.size_bytes = size = self.size_bytes + size
        if size >= self._limit:
            self.is_full = True
            self._room.clear()
        if len(messages) >= FLUSH_COUNT or collected.size_bytes >= FLUSH_BYTES:
            self._flush()

    def put_awaited(self, attempt: "Attempt", stored: StoredRecord, message: Outgoing) -> "asyncio.Future[Published]":
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
        self.put(attempt, stored, message)
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
        self._collected = _Publication(self.publications.collecting)
        self._flying.append(collected)
        collected.future = future = self.producer.queue(collected.messages)
        if future.done():
            self._land(collected, future)
        else:
            future.add_done_callback(partial(self._land, collected), context=self._context)

    def _land(self, publication: "_Publication", future: "asyncio.Future[list[Published]]") -> None:
        if self._is_closed:
            return
        publication.note([*range(len(publication.messages))], future)
        if publication.left and self._mender is None:
            if len(publication.left) == 1 and not _is_passing(publication.error):
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
            passing = [each.error for each in self._flying if each.left and _is_passing(each.error)]
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

    async def _send_again(self, parts: "Sequence[Sequence[tuple[_Publication, int]]]") -> None:
        """Queue messages anew, each part as a publication of its own, and note what became of them."""
        sent = [(part, self.producer.queue([publication.messages[at] for publication, at in part])) for part in parts]
        await asyncio.wait([future for _, future in sent])
        for publication in self._flying:
            publication.left, publication.error = [], None
        for part, future in sent:
            error = _error_of(future)
            stored: Sequence[Published | None] = future.result() if error is None else _stored(error, len(part))
            for (publication, at), published in zip(part, stored, strict=True):
                if published is not None:
                    publication.store(at, published)
                elif len(part) == 1 and not _is_passing(error):
                    publication.error = publication.error if _is_passing(publication.error) else error
                    publication.refuse(at, error)
                else:
                    assert publication.left is not None
                    publication.left.append(at)
                    if not _is_passing(publication.error):
                        publication.error = error

    def check(self) -> None:
        """Assert the invariants."""
        numbers = [each.number for each in self._flying]
        assert numbers == sorted(numbers)
        assert self.size_bytes == sum(each.size_bytes for each in (*self._flying, self._collected))


class AssignedOutputs(NamedTuple):
    """The outputs of one assignment of a partition.

    Attributes:
        outputs: Of its group.
        unacknowledged: Its own.
    """

    outputs: OutputsInFlight
    unacknowledged: Unacknowledged

    def outlet(self, name: str, conclude: ConcludeRefused) -> "Outlet":
        """Return where the outputs of one handler go."""
        return Outlet(self.outputs, self.unacknowledged, name, conclude)


class Outlet:
    """Where the outputs of one handler go, for one assignment of a partition.

    Args:
        outputs: Of its group.
        unacknowledged: Of the assignment.
        name: The handler's.
        conclude: Takes a record whose output is refused the road of failure. What stands around the handler may stand
            around this, too.
    """

    __slots__ = ("conclude", "name", "outputs", "unacknowledged")

    def __init__(
        self, outputs: OutputsInFlight, unacknowledged: Unacknowledged, name: str, conclude: ConcludeRefused
    ) -> None:
        self.outputs = outputs
        self.unacknowledged = unacknowledged
        self.name = name
        self.conclude = conclude

    def begin(self, number: int, *, claim: Claim | None = None, stored: StoredRecord | None = None) -> "Attempt":
        """Note that the handler begins with a record, or with those of a claim one after the other.

        Args:
            number: The attempt.
            claim: The claim.
            stored: Else the record, or batch.
        """
        attempt = Attempt(self, number, claim, stored)
        running.set(attempt)
        return attempt


class Attempt:
    """One run of a handler, or its runs of a claim's records: whose outputs they are.

    Attributes:
        outlet: The handler's.
        number: The attempt.
        is_running: Whether what is published may be its. A task that the handler has started may outlive it.
    """

    __slots__ = ("_claim", "_failed", "_stored", "is_running", "number", "outlet")

    def __init__(self, outlet: Outlet, number: int, claim: Claim | None, stored: StoredRecord | None) -> None:
        self.outlet = outlet
        self.number = number
        self._claim = claim
        self._stored = stored
        self._failed: StoredRecord | None = None
        self.is_running = True

    @property
    def producer(self) -> Producer:
        """Where outputs go."""
        return self.outlet.outputs.producer

    @property
    def record(self) -> StoredRecord:
        """What runs."""
        if self._claim is not None:
            return self._claim.current
        assert self._stored is not None
        return self._stored

    def queue(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish for the record that runs. Raises as `OutputsInFlight.put_awaited`."""
        return self.outlet.outputs.put_awaited(self, self.record, message)

    async def outputs_gone(self) -> None:
        """Wait until the outputs of earlier records are where nothing overtakes them."""
        await self.outlet.outputs.gone()

    def narrow(self, batch: Batch) -> None:
        """Note which records of a batch the handler gets: what it publishes is theirs."""
        self._stored = batch

    def end(self) -> None:
        """Take it that nothing is published for it any more."""
        self.is_running = False

    def fail(self, stored: StoredRecord) -> None:
        """Note that a record's run has failed: what it published belongs to no record any more."""
        self._failed = stored

    def refuse(self, stored: StoredRecord, error: BaseException) -> None:
        """Make a refused output its record's failure, unless its run has failed already."""
        if self._failed is not None and (self._claim is None or self._failed is stored):
            return
        outlet = self.outlet
        refusal = Refusal(outlet, stored, partial(_conclude, outlet, stored, self.number, error))
        offsets = [each.offset for each in stored] if isinstance(stored, Batch) else [settles_at(stored)]
        outlet.unacknowledged.refuse(refusal, offsets)


async def _conclude(outlet: Outlet, stored: StoredRecord, attempt: int, error: BaseException) -> Outcome | BatchOutcome:
    running.set(None)  # what is published from here on is no output of a handler
    if isinstance(error, ConfigurationError):
        refused = ResultRefused(f"handler {outlet.name!r}: {error}")
        refused.__cause__ = error
        error = refused
    return await outlet.conclude(stored, attempt, error)


class _Publication:
    """Outputs that go out together.

    Attributes:
        number: Its own.
        messages: In order.
        attempts: Of each, whose it is.
        records: Of each, the record or batch.
        size_bytes: Of their keys, values and headers.
        waiters: Futures of those that a handler may wait for, by their place.
        left: Places of those that are not stored; None while they are on their way.
        error: Why.
        future: The producer's.
    """

    __slots__ = (
        "_refused",
        "attempts",
        "error",
        "future",
        "left",
        "messages",
        "number",
        "records",
        "size_bytes",
        "waiters",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[Outgoing] = []
        self.attempts: list[Attempt] = []
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
        self.error = error = _error_of(future)
        if error is None and not self.waiters:
            self.left = []
            return
        stored: Sequence[Published | None] = future.result() if error is None else _stored(error, len(places))
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
            if self.attempts[at].outlet.unacknowledged.is_open:
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
        attempt, stored = self.attempts[at], self.records[at]
        if (run := (id(attempt), id(stored))) not in self._refused:
            self._refused.add(run)
            attempt.refuse(stored, error)


def _error_of(future: "asyncio.Future[Any]") -> BaseException | None:
    return ConnectionFailed("the producer was closed") if future.cancelled() else future.exception()


def _stored(error: BaseException, count: int) -> Sequence[Published | None]:
    stored = error.published if isinstance(error, OctopusError) else None
    return stored if stored is not None else [None] * count


def _is_passing(error: BaseException | None) -> bool:
    return isinstance(error, TransportError) and error.retryable


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Look at an error that the handler perhaps never asks for: its record does."""
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
