"""Transactions of a producer: what it publishes and a group's offsets, all or nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from octopus.errors import TransportError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Commit, Outgoing
from octopus.transports.kafka.clients import Producer
from octopus.transports.kafka.errors import FOREIGN
from octopus.transports.kafka.producer import KafkaProducer
from octopus.transports.queueing import Queued


class KafkaTransactionalProducer:
    """Publishes messages in transactions.

    Args:
        producer: One with a transactional id, not started.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._engine = producer.engine

    async def start(self) -> None:
        """Connect; fence the producer that had the id before, and end its open transaction."""
        await self._producer.start()

    async def stop(self) -> None:
        """Deliver what is queued, then close."""
        await self._producer.stop()

    # publishing

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Publish messages as part of the transaction; see `KafkaProducer`."""
        return self._producer.queue(messages)

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish one message, as `queue`."""
        return self._producer.queue_one(message)

    async def send(self, message: Outgoing) -> Published:
        """Publish one message; return when it is acknowledged."""
        return await self.queue_one(message)

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish messages, as `queue`; return when all are acknowledged."""
        return await self.queue(messages)

    @property
    def queued_bytes(self) -> int:
        """Bytes of the keys and values that are queued or on their way."""
        return self._producer.queued_bytes

    # transactions

    async def begin(self) -> None:
        """Begin a transaction; what is published from now on belongs to it."""
        self._producer.written.clear()
        async with self._step("beginning a transaction") as engine:
            await engine.begin_transaction()

    async def commit(self) -> None:
        """Make everything of the transaction visible and stored at once."""
        await self._producer.all_answered()  # the engine knows of none of it before
        async with self._step("committing a transaction") as engine:
            await engine.commit_transaction()

    async def abort(self) -> None:
        """Drop everything of the transaction; readers of committed records never see it."""
        await self._producer.all_answered()
        if self._engine.current is not None:
            # After an error of one partition the engine takes the transaction for empty and would not end it at the broker:
            # what was written before would be part of the next one.
            self._engine.current.note_written(self._producer.written)
            self._engine.current.look_at_transaction_error()
        async with self._step("aborting a transaction") as engine:
            await engine.abort_transaction()

    async def send_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Make a group's offsets part of the transaction."""
        stored = {KafkaTopicPartition(*partition): OffsetAndMetadata(*commit) for partition, commit in offsets.items()}
        async with self._step(f"adding offsets of group {group!r} to a transaction") as engine:
            await engine.send_offsets_to_transaction(stored, group)

    @contextlib.asynccontextmanager
    async def _step(self, doing: str) -> AsyncIterator[Producer]:
        """Map what goes wrong, and bound the engine's retries in time; it goes on until it is stopped."""
        engine = self._engine.current
        if engine is None:
            raise TransportError("The producer is not running.")
        if self._engine.is_lost:
            raise self._engine.fenced(doing)
        try:
            async with asyncio.timeout(self._producer.delivery_timeout):
                yield engine
        except FOREIGN as error:
            raise self._engine.translated(error, doing, engine) from error
