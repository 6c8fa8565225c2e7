"""What handlers publish under `delivery="exactly_once"`: kept back until their record settles.

    an attempt publishes ──▶ kept; dropped if it fails ── its record settles ──▶ the outbox ──▶ a transaction

So nothing of a failed attempt can become visible, and no transaction is open while a handler runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from octopus.errors import HandlerStopped, RecordTooLarge
from octopus.events import Batch, Published, Record, StoredRecord, TopicPartition, settles_at
from octopus.outcomes import DeadLetter, Deferred, Outcome, Retry
from octopus.pipeline.boundary import log
from octopus.pipeline.dead_letters import shed
from octopus.transports.base import Outgoing, Producer
from octopus.transports.queueing import Backlog, Queued, answered, first_of
from octopus.transports.topic_creation import sources_of
from octopus.types import BatchOutcome, Defer, Handle, PublishDeadLetter, Run

Ensure = Callable[[Collection[str], Mapping[str, Collection[str]]], Awaitable[None]]
"""Makes sure that topics exist, and take what the topics of the events take that are copied there; raises `TransportError`."""


class _Capture:
    """What is published while an attempt runs, or a copy of its record is written."""

    __slots__ = ("is_over", "messages")

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self.is_over = False


_current_capture: ContextVar[_Capture | None] = ContextVar("octopus capture", default=None)


@contextmanager
def _capturing() -> Iterator[_Capture]:
    capture = _Capture()
    token = _current_capture.set(capture)
    try:
        yield capture
    finally:
        _current_capture.reset(token)
        capture.is_over = True


class CapturingProducer:
    """Publishes; but what is published inside an attempt of a handler that delivers exactly once is kept with it.

    What a task publishes that outlives its attempt belongs to no record any more and is published as it comes.

    Args:
        producer: Publishes everything else.
        ensure: Makes sure that the topic of what is kept exists, so that a missing one is the handler's failure.
    """

    def __init__(self, producer: Producer, ensure: Ensure | None = None) -> None:
        self._producer = producer
        self._ensure = ensure
        self._ensured: set[str] = set()
        self._ensuring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Deliver what is queued, then close."""
        if self._ensuring:
            await asyncio.wait(self._ensuring)
        await self._producer.stop()

    async def send(self, message: Outgoing) -> Published:
        """Publish or keep one message. One that is kept has no offset yet, perhaps no partition either: they are -1."""
        capture = _current_capture.get()
        if capture is None or capture.is_over:
            return await self._producer.send(message)
        return (await self._keep(capture, [message]))[0]

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish or keep messages in order; see `send`."""
        capture = _current_capture.get()
        if capture is None or capture.is_over:
            return await self._producer.send_many(messages)
        return await self._keep(capture, messages)

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Queue messages, or keep them in order; see `send`. What is kept belongs to its attempt, also when its future fails."""
        capture = _current_capture.get()
        if capture is None or capture.is_over:
            return self._producer.queue(messages)
        capture.messages.extend(messages)
        topics = {message.topic for message in messages}
        if self._ensure is None or topics <= self._ensured:
            return answered(lambda: _kept(messages))
        backlog = Backlog()
        future = backlog.add(messages)
        task = asyncio.create_task(self._ensure_for(backlog, topics, messages))
        self._ensuring.add(task)
        task.add_done_callback(self._ensuring.discard)
        return future

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Queue or keep one message, as `queue`."""
        capture = _current_capture.get()
        if capture is None or capture.is_over:
            return self._producer.queue_one(message)
        return first_of(self.queue((message,)))

    @property
    def queued_bytes(self) -> int:
        """Bytes of the keys and values that are on their way; what is kept is counted by the outbox."""
        return self._producer.queued_bytes

    async def _keep(self, capture: _Capture, messages: Sequence[Outgoing]) -> list[Published]:
        if self._ensure is not None:
            await self._ensure({message.topic for message in messages}, sources_of(messages))
        capture.messages.extend(messages)
        return _kept(messages)

    async def _ensure_for(self, backlog: Backlog, topics: set[str], messages: Sequence[Outgoing]) -> None:
        assert self._ensure is not None
        try:
            await self._ensure(topics, sources_of(messages))
        except Exception as error:  # noqa: BLE001 - the future has it
            backlog.fail(error)
        else:
            self._ensured |= topics
            backlog.pass_on(lambda messages: answered(lambda: _kept(messages)))


def _kept(messages: Sequence[Outgoing]) -> list[Published]:
    return [
        Published(message.topic, -1 if message.partition is None else message.partition, -1) for message in messages
    ]


class Contribution(NamedTuple):
    """What one attempt, or one dead letter, publishes.

    Attributes:
        messages: In order.
        first: Offset of its record, or of the first of its batch.
        last: Offset of the last of its batch.
        refuse: Gives what is to be published instead when a broker refuses the messages for good: dead letters, and of
            those smaller ones. It raises `HandlerStopped` when there is nothing left to leave out.
    """

    messages: Sequence[Outgoing]
    first: int
    last: int
    refuse: "Refuse"


Refuse = Callable[[Exception], Awaitable[Contribution]]


class Outbox:
    """What the settled records of one assignment of a partition publish, until a transaction takes it.

    Args:
        partition: Whose records they are.

    Attributes:
        size_bytes: Key and value bytes that wait.
    """

    def __init__(self, partition: TopicPartition) -> None:
        self._partition = partition
        self._kept: dict[int, list[Contribution]] = {}  # of records that are not settled, by offset
        self._waiting: list[Contribution] = []
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self, before: int | None = None) -> list[Contribution]:
        """Return what waits and forget it.

        Args:
            before: Of records below this offset only.
        """
        taken = [each for each in self._waiting if before is None or each.last < before]
        self._waiting = [] if before is None else [each for each in self._waiting if each.last >= before]
        self.size_bytes -= sum(map(_size, taken))
        return taken

    def put_back(self, taken: Sequence[Contribution]) -> None:
        """Let what was taken wait again, before everything else: nothing came of its transaction."""
        self._waiting[:0] = taken
        self.size_bytes += sum(map(_size, taken))

    def straddles(self, offset: int) -> bool:
        """Tell whether something waits that records on both sides of an offset have published together."""
        return any(each.first < offset <= each.last for each in self._waiting)

    # ── what stands around a handler ──────────────────────────────────────────────────────────────────────────────

    def attempting(self, name: str, handle: Handle, publish_dead_letter: PublishDeadLetter) -> Handle:
        """Keep what a successful attempt publishes.

        Args:
            name: The handler's, for the log.
            handle: One record or batch to its outcome; it raises what the handler raises.
            publish_dead_letter: Takes the dead letters of what a broker refuses.
        """

        async def handle_captured(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
            with _capturing() as captured:
                outcome = await handle(stored, attempt)
            try:
                settled = _settled(stored, outcome)
                if captured.messages and settled:
                    records = [Record.at(self._partition, each) for each in settled]
                    refuse = self._dead_letters_instead(
                        name, records, attempt, publish_dead_letter, "published what the broker refuses"
                    )
                    self._keep(captured.messages, settles_at(stored), settles_at(settled[-1]), refuse)
                return outcome
            finally:
                del outcome  # see `octopus.types`

        return handle_captured

    def publishing_dead_letters(self, publish_dead_letter: PublishDeadLetter) -> PublishDeadLetter:
        """Keep dead letters."""

        async def publish_captured(record: Record, dead_letter: DeadLetter, attempt: int) -> None:
            with _capturing() as captured:
                await publish_dead_letter(record, dead_letter, attempt)
            if captured.messages:
                at = settles_at(record)
                self._keep(captured.messages, at, at, _shedding(captured.messages, at, at))

        return publish_captured

    def deferring(self, name: str, defer: Defer, publish_dead_letter: PublishDeadLetter) -> Defer:
        """Keep what waits for a retry; arguments as `attempting`."""

        async def defer_captured(record: Record, retry: Retry, attempt: int) -> Outcome:
            with _capturing() as captured:
                outcome = await defer(record, retry, attempt)
            if isinstance(outcome, Deferred):
                refuse = self._dead_letters_instead(
                    name, [record], attempt, publish_dead_letter, "is to be retried later, which the broker refuses"
                )
                self._keep(captured.messages, settles_at(record), settles_at(record), refuse)
            return outcome

        return defer_captured

    def settling(self, run: Run) -> Run:
        """Let what is kept of a record wait for a transaction once the record settles."""

        async def run_settling(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
            try:
                outcome = await run(stored, attempt)
            except BaseException:
                # Cancelled, or processing stops: if the record comes again, all of its handlers run again.
                for each in stored if isinstance(stored, Batch) else (stored,):
                    self._kept.pop(each.offset, None)
                raise
            # No suspension from here to where the runner settles the record: both happen, or neither.
            try:
                if isinstance(outcome, BatchOutcome):
                    for single in outcome.batch:
                        self._release(single.offset)
                elif not isinstance(outcome, Retry):
                    self._release(stored.offset)
                return outcome
            finally:
                del outcome  # see `octopus.types`

        return run_settling

    def _dead_letters_instead(
        self, name: str, records: Sequence[Record], attempt: int, publish_dead_letter: PublishDeadLetter, reason: str
    ) -> Refuse:
        async def refuse(error: Exception) -> Contribution:
            dead_letter = DeadLetter(f"{reason}: {error}", error)
            with _capturing() as kept:
                for record in records:
                    log(name, record, attempt, dead_letter)
                    await publish_dead_letter(record, dead_letter, attempt)
            first, last = settles_at(records[0]), settles_at(records[-1])
            return Contribution(kept.messages, first, last, _shedding(kept.messages, first, last))

        return refuse

    def _keep(self, messages: Sequence[Outgoing], first: int, last: int, refuse: "Refuse") -> None:
        self._kept.setdefault(first, []).append(Contribution(messages, first, last, refuse))

    def _release(self, offset: int) -> None:
        for contribution in self._kept.pop(offset, ()):
            self._waiting.append(contribution)
            self.size_bytes += _size(contribution)


def _shedding(dead_letters: Sequence[Outgoing], first: int, last: int) -> Refuse:
    """Return what makes dead letters smaller that are refused for their size."""

    async def refuse(error: Exception) -> Contribution:
        smaller = [shed(dead_letter) for dead_letter in dead_letters] if isinstance(error, RecordTooLarge) else [None]
        if None in smaller:
            raise HandlerStopped(f"a dead letter cannot be written to {dead_letters[0].topic!r}: {error}") from error
        kept = [dead_letter for dead_letter in smaller if dead_letter is not None]
        return Contribution(kept, first, last, _shedding(kept, first, last))

    return refuse


def _settled(stored: StoredRecord, outcome: Outcome | BatchOutcome) -> list[StoredRecord]:
    """Return those whose attempt succeeded: a handler's outputs go with them."""
    if isinstance(outcome, BatchOutcome):
        return [single for single, result in outcome.outcomes() if not isinstance(result, Retry | DeadLetter)]
    return [] if isinstance(outcome, Retry) else [stored]


def _size(contribution: Contribution) -> int:
    return sum(len(message.key or b"") + len(message.value or b"") for message in contribution.messages)


__all__ = ["CapturingProducer", "Contribution", "Outbox"]
