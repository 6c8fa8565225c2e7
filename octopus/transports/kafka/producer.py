"""A producer on aiokafka's engine: idempotent, acknowledged by all in-sync replicas, packing its own batches."""

import asyncio
import contextlib
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Literal

import aiokafka.errors as kafka
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from octopus.errors import ConnectionFailed, OctopusError, RecordTooLarge, TopicNotFound, TransportError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Outgoing
from octopus.transports.kafka import missing
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.clients import Producer
from octopus.transports.kafka.closed import Closed, Place
from octopus.transports.kafka.errors import mapped, translated
from octopus.transports.kafka.metadata import partitions_of
from octopus.transports.kafka.outage import Outage
from octopus.transports.kafka.packing import Batch, Packer, Round
from octopus.transports.kafka.producer_engine import (
    REFUSED_FOR_A_RECORD,
    TOO_LARGE,
    Builder,
    Renewing,
    departure,
    named_in,
)
from octopus.transports.kafka.record_batch import RecordBatch
from octopus.transports.kafka.renewal import NUMBERS_LOST, RenewableEngine
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.partitioner import Partitioner
from octopus.transports.queueing import Call, Queued, fail, of_these, size_of

Compression = Literal["gzip", "snappy", "lz4", "zstd"]

MOST_COLLECTING = 1.0
"""Seconds that `send` may collect behind a batch that does not leave: its leader may be gone, and others' may not."""

TURN = 0.005
"""Seconds of packing after which others in the loop have their turn: on a slow link, a round has what many calls queued."""

UNBOUNDED = 2**31 - 1
"""Bytes of a batch that is made again of another one's messages: all of them go into it. They may take more bytes than before, since a
record's time is written as its difference to the time at which its batch begins, and that is another one now."""

_TOPIC, _VALUE, _PARTITION = attrgetter("topic"), attrgetter("value"), attrgetter("partition")


class Failed(Exception):
    """Why a batch was taken back from aiokafka, in our words."""

    retriable = True

    def __init__(self, ours: OctopusError) -> None:
        super().__init__(str(ours))
        self.ours = ours


class KafkaProducer:
    """Publishes messages.

    Args:
        settings: Where the cluster is.
        linger: How long, in seconds, `send` may collect messages while others are on their way; an idle producer sends at once.
        max_batch_bytes: One batch of one partition, before compression.
        max_record_bytes: One record; the broker's own limit is usually lower.
        max_in_flight_bytes: What may be on its way; publishing more waits.
        compression: Of the batches, or None.
        delivery_timeout: After so many seconds without an answer a message counts as failed, though it may yet be stored.
        transactional_id: What is published belongs to a transaction; see `KafkaTransactionalProducer`.
        reports_outages: Whether the log has a line when no broker can be reached any more, and one when a broker answers again.

    Attributes:
        delivery_timeout: As given.
        engine: aiokafka's producer, and what puts another one in its place.
        written: Partitions in which something was stored since this was cleared.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        linger: float = 0.005,
        max_batch_bytes: int = 1_000_000,
        max_record_bytes: int = 64 * 1024 * 1024,
        max_in_flight_bytes: int = 32 * 1024 * 1024,
        compression: Compression | None = None,
        delivery_timeout: float = 60.0,
        transactional_id: str | None = None,
        reports_outages: bool = False,
    ) -> None:
        self._settings = settings
        self._linger = linger
        self._max_record_bytes = max_record_bytes
        self._max_in_flight_bytes = max_in_flight_bytes
        self.delivery_timeout = delivery_timeout
        self._options: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "max_batch_size": max_batch_bytes,
            "compression_type": compression,
            "transactional_id": transactional_id,
        }
        outage = Outage(settings.brokers, delivery_timeout) if reports_outages else None
        self.engine = RenewableEngine(settings, self._options, self._send_again, outage)
        self.written: set[KafkaTopicPartition] = set()
        self._partitioner = Partitioner()
        self._calls: list[Call] = []
        self._rounds: set[Round] = set()
        self._queued_bytes = 0
        self._flusher: asyncio.Task[None] | None = None
        self._in_flight_bytes = 0
        self._dispatched = 0
        self._closed = Closed()
        self._answered: list[asyncio.Future[None]] = []
        self._found: set[str] = set()

    # life

    async def start(self) -> None:
        """Connect."""
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        await self.engine.start()
        self._flusher = asyncio.create_task(self._flush_forever())

    async def stop(self) -> None:
        """Deliver what is queued, then close. Gives up after the delivery timeout; a call whose future was cancelled is not waited for."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            deadline = self._loop.time() + self.delivery_timeout
            while not flusher.done() and (waiting := self._waiting()) and (left := deadline - self._loop.time()) > 0:
                await asyncio.wait(waiting, timeout=left)
            flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flusher
        await self.engine.stop()
        closed = TransportError("The producer was closed before this was acknowledged; it may yet be stored.")
        for call in self._unfinished():
            fail(call.future, of_these(closed, [None] * len(call.messages)))

    def _unfinished(self) -> list[Call]:
        return [*(call for round_ in self._rounds for call in round_.calls if call.open), *self._calls]

    def _waiting(self) -> "list[Queued]":
        return [call.future for call in self._unfinished() if not call.future.done()]

    # publishing

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Publish messages in order per partition, behind all others, without waiting for anything.

        When one of them cannot be stored, the others still are; then the future has its error. A batch that the broker refuses for
        some of its messages goes again without those; where it does not name them, in halves until only they fail.
        """
        call = Call(messages, asyncio.get_running_loop().create_future())
        self.queue_call(call)
        return call.future

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish one message, as `queue`; messages that are queued meanwhile share its batch."""
        call = Call((message,), asyncio.get_running_loop().create_future(), None, True)
        self.queue_call(call)
        return call.future

    def queue_call(self, call: Call) -> None:
        """Queue a call, as `queue`."""
        if self._flusher is None or self._flusher.done():
            call.error = TransportError("The producer is not running.")
            call.finish([None] * len(call.messages))
        elif not call.messages:
            call.finish([])
        else:
            self._queued_bytes += call.size_bytes
            self._calls.append(call)
            self._arrived.set()

    async def all_answered(self) -> None:
        """Wait until every call is finished that was queued; those whose futures are done are not waited for."""
        while self._flusher is not None and not self._flusher.done() and (waiting := self._waiting()):
            await asyncio.wait(waiting)

    async def answered(self, topic: str) -> None:
        """Wait until every call for a topic is finished that was queued."""
        while any(topic in call.topics() for call in self._unfinished()):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._answered.append(waiter)
            await waiter

    @property
    def queued_bytes(self) -> int:
        """Bytes of the keys and values that are queued or on their way."""
        return self._queued_bytes

    async def send(self, message: Outgoing) -> Published:
        """Publish one message; messages that are sent meanwhile share its batch."""
        return await self.queue_one(message)

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish messages in order per partition, as `queue`; return when all are acknowledged."""
        return await self.queue(messages)

    def _call_finished(self, round_: Round, call: Call) -> None:
        self._queued_bytes -= call.size_bytes
        if self._closed:
            self._closed.note_finished(call)
        if self._answered:
            waiters, self._answered = self._answered, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if not round_.open - 1:
            self._rounds.discard(round_)

    async def _flush_forever(self) -> None:
        """Publish what was queued, a round at a time: what arrives while one is on its way makes the next."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            calls, self._calls = self._calls, []
            round_ = Round(calls, self._call_finished)
            if calls:
                self._rounds.add(round_)
            try:
                leaving = await self._enqueue(round_)
            except Exception as error:  # noqa: BLE001 - each caller gets it; the task must live on
                self._abandon(round_, error)
                continue
            if calls:
                await self._collect(round_, leaving)

    def _abandon(self, round_: Round, error: Exception) -> None:
        """Give up all that is not with the engine, and close its topics: who sends it again is not to be overtaken."""
        kept, unfinished = self.engine.take_kept(), self._unfinished()
        later, self._calls = Round(self._calls, self._call_finished), []
        topics = {message.topic for message in (*round_.messages, *later.messages)}
        for topic in topics.union(batch.partition.topic for batch in kept):
            self._closed.close((topic, None), error, unfinished)
        for batch in kept:
            batch.round.fail(batch, error)
        round_.abandon(error)
        later.abandon(error)

    async def _collect(self, round_: Round, leaving: "list[asyncio.Future[None]]") -> None:
        """Let small messages gather behind those that are on their way; many wait for nothing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger):
                await round_.done.wait()
        # A batch that waits behind another of its partition is closed already. More small ones behind it would each
        # take a round trip, and a slow link would fall behind for ever: collect until it has left.
        if waiting := [future for future in leaving if not future.done()]:
            await asyncio.wait(waiting, timeout=MOST_COLLECTING)

    async def _enqueue(self, round_: Round) -> "list[asyncio.Future[None]]":
        """Give all messages to the engine, waiting for room; return futures that are done when batches leave its queue."""
        engine = await self.engine.ready()
        if not round_.calls:
            return []
        partitions = await self._partitions(engine, round_)
        accepted = self._acceptable(round_, partitions)
        limit = self._options["max_batch_size"]
        packer = Packer(lambda: self._builder(engine, limit), partitions, self._partitioner)
        leaving = []
        began = self._loop.time()
        for batch in packer.pack(round_, accepted):
            if batch is None:
                if self._loop.time() - began >= TURN:
                    await asyncio.sleep(0)
                    began = self._loop.time()
                continue
            while self._in_flight_bytes >= self._max_in_flight_bytes:
                self._room.clear()
                await self._room.wait()
            if self.engine.is_renewal_due:
                engine = await self.engine.ready()
            queued = self._dispatch(engine, batch)
            del round_.undispatched[batch]
            if queued is not None:
                leaving.append(departure(queued))
        round_.release_all()
        return leaving

    def _builder(self, engine: Producer, limit: int) -> Any:
        if self._options["compression_type"] is not None:
            return engine.accumulator.builder(limit)
        return Builder(RecordBatch(limit, is_transactional=self._options["transactional_id"] is not None))

    async def _partitions(self, engine: Producer, round_: Round) -> dict[str, int]:
        """Return the number of partitions of every topic; 0, with its messages failed, when there is none."""
        found: dict[str, int] = {}
        for topic in set(map(_TOPIC, round_.messages)):
            error = self._closed.error_of((topic, None))
            if error is None:
                try:
                    with mapped(f"publishing to {topic!r}", self._settings.brokers, ClientName.of(engine.client)):
                        # One that was there does not take a moment to become known: others must not wait for it.
                        patience = missing.MISSING_FOR if topic in self._found else self._settings.metadata_timeout
                        found[topic] = len(await partitions_of(engine.client, topic, patience))
                        self._found.add(topic)
                        continue
                except OctopusError as failed:
                    error = failed
                    self._close_behind((topic, None), error, engine)
            found[topic] = 0
            self._found.discard(topic)
            round_.refuse([i for i, m in enumerate(round_.messages) if m.topic == topic], error)
        return found

    def _close_behind(self, place: Place, error: OctopusError, engine: Producer) -> None:
        """Let what is queued behind a failure fail, too: it would overtake what is sent again."""
        if self._closed.error_of(place) is None:
            self._closed.close(place, error, self._unfinished())
            engine.take_back_queued(Failed(error), *place)

    def _acceptable(self, round_: Round, partitions: dict[str, int]) -> Sequence[int] | None:
        """Fail the messages that no broker would take; return the indexes of the others, None when that is all."""
        messages, most = round_.messages, self._max_record_bytes
        largest = max(map(len, filter(None, map(_VALUE, messages))), default=0)
        wanted = set(map(_PARTITION, messages))
        if largest <= most and all(partitions.values()) and wanted == {None}:
            return None
        accepted = []
        for index, message in enumerate(messages):
            topic, value, number = message.topic, message.value, message.partition
            count = partitions[topic]
            if not count:
                continue  # failed already
            if number is not None and not 0 <= number < count:
                wrong = f"Topic {topic!r} has {count} partitions; there is no partition {number}."
                round_.refuse([index], TopicNotFound(wrong))
            elif value is not None and len(value) > most and message.source is None:  # a copy of what a broker took
                wrong = f"A record of {len(value)} bytes for topic {topic!r} is over the limit of {most} bytes."
                round_.refuse([index], RecordTooLarge(f"{wrong} Store it elsewhere and publish a reference."))
            else:
                accepted.append(index)
        return accepted

    def _dispatch(self, engine: Producer, batch: Batch) -> Any:
        """Queue a batch behind the others of its partition; return aiokafka's batch, or None when it takes no more.

        `AIOKafkaProducer.send_batch` would wait until no other batch of the partition is queued, in no particular order.
        """
        accumulator = engine.accumulator
        if not batch.number:
            self._dispatched += 1
            batch.number = self._dispatched
        if self.engine.is_renewal_due:
            self._keep(batch)
            return None
        refusal = self._closed.error_of(batch.partition) if self._closed else None
        if refusal is None and (error := accumulator.refusal) is not None:
            refusal = self._translated(batch.partition, error, engine)
        if refusal is not None:
            batch.round.fail(batch, refusal)
            return None
        builder = batch.close()
        size = builder.size()
        self._in_flight_bytes += size
        message_batch = accumulator.append(builder, KafkaTopicPartition(*batch.partition))
        if batch.deadline is None:
            batch.deadline = self._loop.time() + self.delivery_timeout
        watch = missing.BatchWatch(
            engine,
            message_batch,
            batch.deadline,
            too_late=lambda name: self._too_late(engine, batch, message_batch, name),
            is_gone=lambda error: self._close_behind(
                (batch.partition.topic, None), self._translated(batch.partition, error, engine), engine
            ),
        )

        def settled(future: "asyncio.Future[Any]") -> None:
            watch.stop()
            self._in_flight_bytes -= size
            self._room.set()
            self._settle(engine, batch, future, was_sent=message_batch.retry_count > 0)

        message_batch.future.add_done_callback(settled)
        return message_batch

    def _keep(self, batch: Batch) -> None:
        """Keep a batch for the next engine, and let that be made."""
        self.engine.keep(batch)
        self._arrived.set()

    def _send_again(self, engine: Producer, batch: Batch) -> None:
        self._dispatch(engine, batch.again(self._builder(engine, UNBOUNDED)))

    def _too_late(self, engine: Producer, batch: Batch, message_batch: Any, name: ClientName) -> None:
        if name.failure is not None:
            error = translated(name.failure, f"publishing to {batch.partition}", self._settings.brokers)
        else:
            error = ConnectionFailed(
                f"Kafka at {self._settings.brokers} did not acknowledge records for {batch.partition} within "
                f"{self.delivery_timeout:g} s; they may yet be stored. Check that the broker runs."
            )
        is_taken_back = engine.take_back(message_batch, Failed(error))
        self._close_behind(batch.partition, error, engine)
        if not is_taken_back:
            batch.indexes = []  # it is on its way, and stays with the engine
            batch.round.fail(batch, error)

    def _settle(self, engine: Producer, batch: Batch, future: "asyncio.Future[Any]", *, was_sent: bool) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            self.written.add(KafkaTopicPartition(*batch.partition))
            if batch.indexes:
                batch.round.store(batch, future.result().offset)
            return
        if isinstance(error, (*NUMBERS_LOST, Renewing)):
            self.engine.lose(engine)
            if self.engine.is_renewable and batch.indexes:
                self._keep(batch)
                return
        elif getattr(error, "retriable", False):
            # Given up without an answer to it, because its partition has no leader or is gone. If it was sent before, it has
            # a sequence number, and it is unknown whether that was used: reused, the next batch could be taken for this one.
            if was_sent and self.engine.is_renewable:
                self.engine.lose(engine)
            self._close_behind(batch.partition, self._translated(batch.partition, error, engine), engine)
        elif isinstance(error, kafka.BrokerResponseError):
            # The broker refused the batch and still expects its first sequence number; aiokafka has counted on, and every
            # later batch of this partition would be out of order.
            engine.count_back(KafkaTopicPartition(*batch.partition), batch.builder.record_count())
        if isinstance(error, REFUSED_FOR_A_RECORD) and batch.indexes:
            self._take_apart(engine, batch, error)
        elif batch.indexes:
            batch.round.fail(batch, self._translated(batch.partition, error, engine))

    def _take_apart(self, engine: Producer, batch: Batch, error: kafka.BrokerResponseError) -> None:
        """Fail the messages for which a batch was refused, and send the others again; where they are not named, find them by halves.

        What is sent again goes before the batches of its partition that are queued already.
        """
        indexes, round_ = batch.indexes, batch.round
        named = {indexes[at]: why for at, why in named_in(error).items() if 0 <= at < len(indexes)}
        if len(indexes) == 1:
            named = {indexes[0]: str(error.args[0]) if error.args else None}
        for index, why in named.items():
            round_.refuse([index], self._refusal(engine, batch, index, error, why))
        middle = len(indexes) // 2
        left = [index for index in indexes if index not in named]
        for part in [left] if named else (indexes[middle:], indexes[:middle]):
            if part:
                again = batch.again(self._builder(engine, UNBOUNDED), part)
                for call in again.calls:
                    call.open += 1
                if self._dispatch(engine, again) is not None:
                    engine.accumulator.put_last_first(KafkaTopicPartition(*batch.partition))
        for call in batch.calls:
            round_.release(call)

    def _refusal(
        self, engine: Producer, batch: Batch, index: int, error: kafka.BrokerResponseError, why: str | None
    ) -> OctopusError:
        """Return the error of one message for which a batch was refused."""
        if isinstance(error, TOO_LARGE):
            size = size_of(batch.round.messages[index : index + 1])
            sizes = f"key and value have {size} bytes, their batch {batch.builder.size()}"
            why = f"{why.rstrip('.')}; {sizes}" if why else sizes
        return self._translated(batch.partition, type(error)(why) if why else error, engine)

    def _translated(self, partition: TopicPartition, error: BaseException, engine: Producer) -> OctopusError:
        if isinstance(error, Failed):
            return error.ours
        return self.engine.translated(error, f"publishing to {partition}", engine)
