"""Packs messages into record batches, one open batch per partition. Far cheaper than aiokafka's `send` per message."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from octopus.errors import OctopusError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Outgoing
from octopus.transports.partitioner import Partitioner


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
        published = self.published
        for offset, index in enumerate(indexes, base):
            published[index] = Published(topic, number, offset)
        if self._waiters is not None:
            for index in indexes:
                if not self._waiters[index].done():
                    self._waiters[index].set_result(published[index])  # type: ignore[arg-type]
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
        self.append = builder._builder.append  # the compiled builder: its wrapper costs as much again
        self.indexes: list[int] = []

    def close(self) -> Any:
        """Return the builder, complete."""
        self.builder._relative_offset = len(self.indexes)
        self.builder.close()
        return self.builder


class Packer:
    """Makes batches of messages.

    Args:
        new_builder: Makes an empty batch builder of aiokafka's.
        partitions: How many partitions each topic of the messages has.
        partitioner: Chooses partitions.
    """

    def __init__(self, new_builder: Any, partitions: dict[str, int], partitioner: Partitioner) -> None:
        self._new_builder = new_builder
        self._partitions = partitions
        self._partitioner = partitioner

    def pack(self, messages: Sequence[Outgoing], indexes: Sequence[int]) -> Iterator[Batch]:
        """Yield full batches as they close, then the rest; per partition they hold the messages in order.

        Messages without a key fill one batch of one partition after the other, as Kafka's sticky partitioner does.
        """
        of_key = self._partitioner.of_key
        unkeyed: dict[str, int] = {}
        opened: dict[tuple[str, int], Batch] = {}
        for index in indexes:
            topic, value, key, headers, number, timestamp = messages[index]
            if number is None:
                if key is not None:
                    number = of_key(key, self._partitions[topic])
                else:
                    chosen = unkeyed.get(topic)
                    if chosen is None:
                        chosen = unkeyed[topic] = self._partitioner.next_for_batch(self._partitions[topic])
                    number = chosen
            place = (topic, number)
            batch = opened.get(place)
            if batch is None:
                batch = opened[place] = Batch(TopicPartition(topic, number), self._new_builder())
            listed = list(headers) if headers else []
            if batch.append(len(batch.indexes), timestamp, key, value, listed) is None:
                yield batch
                batch = opened[place] = Batch(batch.partition, self._new_builder())
                batch.append(0, timestamp, key, value, listed)
                unkeyed.pop(topic, None)
            batch.indexes.append(index)
        yield from opened.values()
