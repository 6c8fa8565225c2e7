"""Packs messages into record batches, one open batch per partition. Far cheaper than aiokafka's `send` per message."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from octopus.errors import OctopusError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Outgoing
from octopus.transports.kafka.engine import appender, finish
from octopus.transports.partitioner import Partitioner

_NO_HEADERS: list[tuple[str, bytes | None]] = []  # read only


class Publication:
    """Messages on their way, and where each of them ended up.

    Args:
        messages: In the order in which they are to be stored, per partition.
        waiters: A future for each message, for messages that different callers wait for.

    Attributes:
        published: Where each message was stored; None as long as, or when, it was not.
        error: The first error.
        done: Set when every message is stored or failed.
    """

    def __init__(
        self, messages: Sequence[Outgoing], waiters: "Sequence[asyncio.Future[Published]] | None" = None
    ) -> None:
        self.messages = messages
        self.published: list[Published | None] = [None] * len(messages)
        self.error: OctopusError | None = None
        self.done = asyncio.Event()
        self._waiters = waiters
        self._open = len(messages)

    def store(self, indexes: list[int], partition: TopicPartition, base: int) -> None:
        """Note that messages were stored, one after the other from an offset on."""
        topic, number = partition
        made: list[Published | None] = [Published(topic, number, base + at) for at in range(len(indexes))]
        if indexes[-1] - indexes[0] == len(indexes) - 1:
            self.published[indexes[0] : indexes[-1] + 1] = made
        else:
            for index, published in zip(indexes, made, strict=True):
                self.published[index] = published
        if self._waiters is not None:
            for index in indexes:
                if not self._waiters[index].done():
                    self._waiters[index].set_result(self.published[index])  # type: ignore[arg-type]
        self._settled(len(indexes))

    def fail(self, indexes: list[int], error: OctopusError) -> None:
        """Note that messages were not stored."""
        self.error = self.error or error
        if self._waiters is not None:
            for index in indexes:
                if not self._waiters[index].done():
                    self._waiters[index].set_exception(error)
        self._settled(len(indexes))

    def _settled(self, count: int) -> None:
        self._open -= count
        if not self._open:
            self.done.set()


class Batch:
    """A batch under construction: which messages are in it, and aiokafka's builder."""

    __slots__ = ("append", "builder", "indexes", "partition")

    def __init__(self, partition: TopicPartition, builder: Any) -> None:
        self.partition = partition
        self.builder = builder
        self.append = appender(builder)
        self.indexes: list[int] = []

    def close(self) -> Any:
        """Return the builder, complete."""
        finish(self.builder, len(self.indexes))
        return self.builder


class Packer:
    """Makes batches of messages.

    Args:
        new_builder: Makes an empty batch builder of aiokafka's.
        partitions: How many partitions each topic of the messages has.
        partitioner: Chooses partitions.
    """

    def __init__(self, new_builder: Callable[[], Any], partitions: dict[str, int], partitioner: Partitioner) -> None:
        self._new_builder = new_builder
        self._partitions = partitions
        self._partitioner = partitioner

    def pack(self, messages: Sequence[Outgoing], indexes: Iterable[int]) -> Iterator[Batch]:
        """Yield full batches as they close, then the rest; per partition they hold the messages in order.

        Messages without a key fill one batch of one partition after the other, as Kafka's sticky partitioner does.
        """
        of_key = self._partitioner.of_key
        opened: dict[tuple[str, int], Batch] = {}
        unkeyed: dict[str, Batch] = {}  # of those, the ones that take messages without a key
        for index in indexes:
            message = messages[index]
            topic, key, number, headers = message.topic, message.key, message.partition, message.headers
            if number is None and key is None:
                batch = unkeyed.get(topic)
                if batch is None:
                    chosen = self._partitioner.next_for_batch(self._partitions[topic])
                    batch = unkeyed[topic] = self._open(opened, topic, chosen)
            else:
                if number is None:
                    number = of_key(key, self._partitions[topic])  # type: ignore[arg-type]
                batch = opened.get((topic, number)) or self._open(opened, topic, number)
            headers = list(headers) if headers else _NO_HEADERS
            inside = batch.indexes
            if batch.append(len(inside), message.timestamp, key, message.value, headers) is None:
                yield batch
                del opened[batch.partition]
                if unkeyed.get(topic) is batch:
                    del unkeyed[topic]
                batch = self._open(opened, *batch.partition)
                batch.append(0, message.timestamp, key, message.value, headers)
                inside = batch.indexes
            inside.append(index)
        yield from opened.values()

    def _open(self, opened: dict[tuple[str, int], Batch], topic: str, number: int) -> Batch:
        batch = opened.get((topic, number))
        if batch is None:
            batch = opened[(topic, number)] = Batch(TopicPartition(topic, number), self._new_builder())
        return batch
