"""A producer on aiokafka's engine: idempotent, acknowledged by all in-sync replicas, packing its own batches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import aiokafka.errors as kafka
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from octopus.errors import ConnectionFailed, OctopusError, PartitionLost, RecordTooLarge, TopicNotFound, TransportError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Commit, Outgoing
from octopus.transports.kafka import missing
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.clients import Producer
from octopus.transports.kafka.engine import departure
from octopus.transports.kafka.errors import FOREIGN, mapped, translated
from octopus.transports.kafka.metadata import partitions_of
from octopus.transports.kafka.packing import Batch, Packer, Publication
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.partitioner import Partitioner

Compression = Literal["gzip", "snappy", "lz4", "zstd"]

_STATE_LOST = (
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.ProducerFenced,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.InvalidTxnState,
)
MOST_COLLECTING = 1.0
"""Seconds that `send` may collect behind a batch that does not leave: its leader may be gone, and others' may not."""

_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)


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
        transactional_id: Makes `begin`, `commit`, `abort` and `send_offsets` available.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        linger: float = 0.005,
        max_batch_bytes: int = 256 * 1024,
        max_record_bytes: int = 64 * 1024 * 1024,
        max_in_flight_bytes: int = 32 * 1024 * 1024,
        compression: Compression | None = None,
        delivery_timeout: float = 60.0,
        transactional_id: str | None = None,
    ) -> None:
        self._settings = settings
        self._linger = linger
        self._max_record_bytes = max_record_bytes
        self._max_in_flight_bytes = max_in_flight_bytes
        self._delivery_timeout = delivery_timeout
        self._transactional_id = transactional_id
        self._options: dict[str, Any] = {
            "acks": "all",
            "enable_idempotence": True,
            "max_batch_size": max_batch_bytes,
            "compression_type": compression,
            "transactional_id": transactional_id,
        }
        self._engine: Any = None
        self._partitioner = Partitioner()
        self._queued: list[tuple[Outgoing, asyncio.Future[Published]]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._in_flight_bytes = 0
        self._state_lost = False
        self._found: set[str] = set()
        self._written: set[KafkaTopicPartition] = set()  # by the transaction that is open

    # life

    async def start(self) -> None:
        """Connect."""
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._enqueuing = asyncio.Lock()
        self._engine = await self._connect()
        self._flusher = asyncio.create_task(self._flush_forever())

    async def _connect(self) -> Producer:
        options = self._settings.client_options() | self._options
        with mapped("connecting", self._settings.brokers, options["client_id"]):
            engine = Producer(**options)
            try:
                await engine.start()
            except BaseException:
                await engine.stop()
                raise
        missing.pace(engine.accumulator)
        engine.sender_task.add_done_callback(lambda task: self._sender_ended(engine, task))
        return engine

    def _sender_ended(self, engine: Producer, task: "asyncio.Task[Any]") -> None:
        """Fail what waits: aiokafka would let it wait for ever."""
        if not engine.is_closed:
            error = None if task.cancelled() else task.exception()
            self._state_lost = True
            engine.look_at_transaction_error()
            engine.accumulator.fail_all(error or kafka.KafkaError("the producer's background task ended"))

    async def stop(self) -> None:
        """Deliver what is queued, then close. Gives up after the delivery timeout."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            while self._queued and not flusher.done():
                await asyncio.wait([future for _, future in self._queued], timeout=self._delivery_timeout)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._delivery_timeout), self._enqueuing:
                    flusher.cancel()  # between two batches: one that is half queued would be lost
            flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flusher
        engine, self._engine = self._engine, None
        if engine is not None:
            await self._close(engine)

    async def _close(self, engine: Producer) -> None:
        try:
            async with asyncio.timeout(self._delivery_timeout):
                await engine.stop()
        except FOREIGN:
            with contextlib.suppress(*FOREIGN):
                await engine.client.close()

    # publishing

    async def send(self, message: Outgoing) -> Published:
        """Publish one message; messages that are sent meanwhile share its batch."""
        if self._flusher is None or self._flusher.done():
            raise TransportError("The producer is not running.")
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._queued.append((message, future))
        self._arrived.set()
        return await future

    async def _flush_forever(self) -> None:
        """Publish what `send` queued, a batch at a time: what arrives while one is on its way makes the next."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            queued, self._queued = self._queued, []
            live = [(message, future) for message, future in queued if not future.done()]
            if not live:
                continue
            publication = Publication([message for message, _ in live], [future for _, future in live])
            try:
                async with self._enqueuing:
                    leaving = await self._enqueue(publication)
            except Exception as error:  # noqa: BLE001 - each caller gets it; the task must live on
                for _, future in live:
                    if not future.done():
                        future.set_exception(error)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger):
                    await publication.done.wait()
            # A batch that waits behind another of its partition is closed already. More small ones behind it would each
            # take a round trip, and a slow link would fall behind for ever: collect until it has left.
            if waiting := [future for future in leaving if not future.done()]:
                await asyncio.wait(waiting, timeout=MOST_COLLECTING)

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish messages in order per partition.

        When one of them cannot be stored, the others still are; then its error is raised. A batch that is too large for
        the topic is split until only the message that is too large by itself fails.
        """
        if not messages:
            return []
        publication = Publication(messages)
        await self._enqueue(publication)
        await publication.done.wait()
        if publication.error is not None:
            if isinstance(publication.error, TransportError):
                publication.error.published = publication.published
            raise publication.error
        return publication.published  # type: ignore[return-value]

    async def _enqueue(self, publication: Publication) -> "list[asyncio.Future[None]]":
        """Give all messages to the engine, waiting for room; return futures that are done when batches leave its queue."""
        engine = await self._ready()
        partitions = await self._partitions(engine, publication)
        indexes = self._acceptable(publication, partitions)
        packer = Packer(engine.create_batch, partitions, self._partitioner)
        leaving = []
        for batch in packer.pack(publication.messages, indexes):
            while self._in_flight_bytes >= self._max_in_flight_bytes:
                self._room.clear()
                await self._room.wait()
            if (queued := self._dispatch(engine, batch, publication)) is not None:
                leaving.append(departure(queued))
        return leaving

    async def _ready(self) -> Producer:
        """Return the engine, a new one when the broker no longer knows the old one's sequence numbers."""
        if self._engine is None:
            raise TransportError("The producer is not running.")
        if self._state_lost and self._transactional_id is None:
            async with self._renewing:
                if self._state_lost:
                    old, self._engine = self._engine, await self._connect()
                    self._state_lost = False
                    await self._close(old)
        if isinstance(ClientName.of(self._engine.client).failure, kafka.SaslAuthenticationFailed):
            # the engine would go on trying without a word; one more attempt may have a better credential
            await self._engine.client.force_metadata_update()
            if (failure := ClientName.of(self._engine.client).failure) is not None:
                raise translated(failure, "publishing", self._settings.brokers) from failure
        engine: Producer = self._engine
        return engine

    async def _partitions(self, engine: Producer, publication: Publication) -> dict[str, int]:
        """Return the number of partitions of every topic; 0, with its messages failed, when there is none."""
        found: dict[str, int] = {}
        for topic in set(map(attrgetter("topic"), publication.messages)):
            doing = f"publishing to {topic!r}"
            try:
                with mapped(doing, self._settings.brokers, ClientName.of(engine.client)):
                    # One that was there does not take a moment to become known: others must not wait for it.
                    patience = missing.MISSING_FOR if topic in self._found else self._settings.metadata_timeout
                    found[topic] = len(await partitions_of(engine.client, topic, patience))
                    self._found.add(topic)
            except OctopusError as error:
                found[topic] = 0
                self._found.discard(topic)
                publication.fail([i for i, m in enumerate(publication.messages) if m.topic == topic], error)
        return found

    def _acceptable(self, publication: Publication, partitions: dict[str, int]) -> Sequence[int]:
        """Fail the messages that no broker would take; return the indexes of the others."""
        messages, most = publication.messages, self._max_record_bytes
        largest = max(map(len, filter(None, map(attrgetter("value"), messages))), default=0)
        wanted = set(map(attrgetter("partition"), messages))
        if largest <= most and all(partitions.values()) and wanted == {None}:
            return range(len(messages))
        accepted = []
        for index, message in enumerate(messages):
            topic, value, number = message.topic, message.value, message.partition
            count = partitions[topic]
            if not count:
                continue  # failed already
            if number is not None and not 0 <= number < count:
                wrong = f"Topic {topic!r} has {count} partitions; there is no partition {number}."
                publication.fail([index], TopicNotFound(wrong))
            elif value is not None and len(value) > most and message.source is None:  # a copy of what a broker took
                wrong = f"A record of {len(value)} bytes for topic {topic!r} is over the limit of {most} bytes."
                publication.fail([index], RecordTooLarge(f"{wrong} Store it elsewhere and publish a reference."))
            else:
                accepted.append(index)
        return accepted

    def _dispatch(self, engine: Producer, batch: Batch, publication: Publication) -> Any:
        """Queue a batch behind the others of its partition; return aiokafka's batch, or None when it takes no more.

        `AIOKafkaProducer.send_batch` would wait until no other batch of the partition is queued, in no particular order.
        """
        accumulator = engine.accumulator
        if (error := accumulator.refusal) is not None:
            publication.fail(batch.indexes, self._translated(batch.partition, error, engine))
            return None
        builder = batch.close()
        size = builder.size()
        self._in_flight_bytes += size
        message_batch = accumulator.append(builder, KafkaTopicPartition(*batch.partition))
        watch = missing.BatchWatch(
            engine, message_batch, self._delivery_timeout, lambda name: self._too_late(batch, publication, name)
        )

        def settled(future: "asyncio.Future[Any]") -> None:
            watch.stop()
            self._in_flight_bytes -= size
            self._room.set()
            self._settle(engine, batch, publication, future, was_sent=message_batch.retry_count > 0)

        message_batch.future.add_done_callback(settled)
        return message_batch

    def _too_late(self, batch: Batch, publication: Publication, name: ClientName) -> None:
        indexes, batch.indexes = batch.indexes, []
        if name.failure is not None:
            error = translated(name.failure, f"publishing to {batch.partition}", self._settings.brokers)
        else:
            error = ConnectionFailed(
                f"Kafka at {self._settings.brokers} did not acknowledge records for {batch.partition} within "
                f"{self._delivery_timeout:g} s; they may yet be stored. Check that the broker runs."
            )
        publication.fail(indexes, error)

    def _settle(
        self, engine: Producer, batch: Batch, publication: Publication, future: "asyncio.Future[Any]", *, was_sent: bool
    ) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            if self._transactional_id is not None:
                self._written.add(KafkaTopicPartition(*batch.partition))
            if batch.indexes:
                publication.store(batch.indexes, batch.partition, future.result().offset)
            return
        if isinstance(error, _STATE_LOST):
            self._state_lost = True
        elif getattr(error, "retriable", False):
            # Given up without an answer to it, because its partition has no leader or is gone. If it was sent before, it has
            # a sequence number, and nobody knows whether that was used: reused, the next batch could be taken for this one.
            self._state_lost = self._state_lost or (was_sent and self._transactional_id is None)
        elif isinstance(error, kafka.BrokerResponseError):
            # The broker refused the batch and still expects its first sequence number; aiokafka has counted on, and every
            # later batch of this partition would be out of order.
            engine.count_back(KafkaTopicPartition(*batch.partition), batch.builder.record_count())
        if isinstance(error, _TOO_LARGE) and len(batch.indexes) > 1:
            middle = len(batch.indexes) // 2
            for half in (batch.indexes[middle:], batch.indexes[:middle]):
                self._again(engine, batch.partition, half, publication)
        elif batch.indexes:
            publication.fail(batch.indexes, self._translated(batch.partition, error, engine))

    def _again(self, engine: Producer, partition: TopicPartition, indexes: list[int], publication: Publication) -> None:
        """Send part of a batch that was too large, before the batches of its partition that are queued already."""
        batch = Batch(partition, engine.create_batch())
        for index in indexes:
            message = publication.messages[index]
            headers = list(message.headers)
            batch.append(len(batch.indexes), message.timestamp, message.key, message.value, headers)
            batch.indexes.append(index)
        self._dispatch(engine, batch, publication)
        engine.accumulator.put_last_first(KafkaTopicPartition(*partition))

    def _translated(self, partition: TopicPartition, error: BaseException, engine: Producer) -> OctopusError:
        if self._transactional_id is not None and isinstance(error, _STATE_LOST):
            ours: OctopusError = self._fenced(f"publishing to {partition}")
        else:
            ours = translated(error, f"publishing to {partition}", self._settings.brokers, ClientName.of(engine.client))
            if isinstance(error, _STATE_LOST) and isinstance(ours, TransportError):
                ours.retryable = True  # the next message goes out with new sequence numbers
        ours.__cause__ = error
        return ours

    # transactions

    async def begin(self) -> None:
        """Begin a transaction; what is published from now on belongs to it."""
        self._written.clear()
        async with self._step("beginning a transaction"):
            await self._engine.begin_transaction()

    async def commit(self) -> None:
        """Make everything of the transaction visible and stored at once."""
        async with self._step("committing a transaction"):
            await self._engine.commit_transaction()

    async def abort(self) -> None:
        """Drop everything of the transaction; readers of committed records never see it."""
        # After an error of one partition the engine takes the transaction for empty and would not end it at the broker:
        # what was written before would be part of the next one.
        self._engine.note_written(self._written)
        self._engine.look_at_transaction_error()
        async with self._step("aborting a transaction"):
            await self._engine.abort_transaction()

    async def send_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Make a group's offsets part of the transaction."""
        stored = {KafkaTopicPartition(*partition): OffsetAndMetadata(*commit) for partition, commit in offsets.items()}
        async with self._step(f"adding offsets of group {group!r} to a transaction"):
            await self._engine.send_offsets_to_transaction(stored, group)

    @contextlib.asynccontextmanager
    async def _step(self, doing: str) -> AsyncIterator[None]:
        """Map what goes wrong, and bound the engine's retries in time; it goes on until it is stopped."""
        if self._state_lost:
            raise self._fenced(doing)
        try:
            with mapped(doing, self._settings.brokers, ClientName.of(self._engine.client)):
                async with asyncio.timeout(self._delivery_timeout):
                    yield
        except TransportError as error:
            if isinstance(error.__cause__, _STATE_LOST):
                raise self._fenced(doing) from error
            raise

    def _fenced(self, doing: str) -> PartitionLost:
        return PartitionLost(
            f"Kafka at {self._settings.brokers} refused {doing}: another producer has the transactional id "
            f"{self._transactional_id!r} now, or this one's transaction took too long."
        )
