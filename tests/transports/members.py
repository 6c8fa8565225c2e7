"""A group member for tests: starts where the group left off, and writes down what happens to it."""

import asyncio
import re
import time
from collections.abc import Callable, Collection
from typing import Any

from octopus.errors import ConnectionFailed
from octopus.events import StoredRecord, TopicPartition
from octopus.transports.base import MAX_BYTES, Chunk, Consumer, Fetched, Transport, Unreadable

PATIENCE = 60.0


class Member:
    """A consumer with its listener.

    Attributes:
        mine: The partitions it has now.
        changes: What the listener was told, in order: ("assigned", partitions) and so on.
        records: Everything read, by partition.
        unreadable: The last error of each partition that could not be read.
        on_revoked: Called, and awaited, inside the revocation.
    """

    def __init__(
        self, transport: Transport, group: str, topics: "Collection[str] | re.Pattern[str]", **options: Any
    ) -> None:
        if transport.name != "memory":
            options.setdefault("session_timeout", 6.0)
            options.setdefault("heartbeat_interval", 0.2)
            options.setdefault("fetch_max_wait", 0.05)
        self.consumer: Consumer = transport.consumer(group, topics, **options)
        self.mine: set[TopicPartition] = set()
        self.changes: list[tuple[str, frozenset[TopicPartition]]] = []
        self.records: dict[TopicPartition, list[StoredRecord]] = {}
        self.next_offsets: dict[TopicPartition, int] = {}
        self.unreadable: dict[TopicPartition, Unreadable] = {}
        self.on_revoked: Callable[[], Any] | None = None
        self.fail_on_assigned: Exception | None = None

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.changes.append(("assigned", frozenset(partitions)))
        if self.fail_on_assigned is not None:
            raise self.fail_on_assigned
        ids = await self._topic_ids({partition.topic for partition in partitions})
        committed = await self.consumer.committed(partitions)
        starts = await self.consumer.offsets(partitions, "earliest")
        await self.consumer.seek({p: starts[p] if (c := committed[p]) is None else c.offset for p in partitions}, ids)
        self.mine |= set(partitions)

    async def _topic_ids(self, topics: set[str]) -> dict[str, str]:
        """Ask until there is an answer: the transports of tests give each question half a second."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return dict(await self.consumer.topic_ids(topics))
            except ConnectionFailed:
                if time.monotonic() > deadline:
                    raise

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.changes.append(("revoked", frozenset(partitions)))
        if self.on_revoked is not None:
            await self.on_revoked()
        self.mine -= set(partitions)

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.changes.append(("lost", frozenset(partitions)))
        self.mine -= set(partitions)

    async def turn(
        self,
        *,
        only: Collection[TopicPartition] | None = None,
        max_records: int = 500,
        timeout: float = 0.1,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        """Fetch once and note what came."""
        fetched = await self.consumer.fetch(
            set(self.mine if only is None else only), max_records=max_records, timeout=timeout, max_bytes=max_bytes
        )
        fetched = [each._replace(records=[*each.records]) if isinstance(each, Chunk) else each for each in fetched]
        for item in fetched:
            if isinstance(item, Chunk):
                self.records.setdefault(item.partition, []).extend(item.records)
                self.next_offsets[item.partition] = item.next_offset
            else:
                self.unreadable[item.partition] = item
        return fetched

    async def until(self, condition: Callable[[], object], **options: Any) -> None:
        """Fetch until a condition holds; fails after a while."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited in vain; {self.changes}, {self.count} records, {self.unreadable}"
            )
            await self.turn(**options)

    @property
    def count(self) -> int:
        """How many records were read."""
        return sum(map(len, self.records.values()))

    def values(self, partition: TopicPartition | None = None) -> list[bytes | None]:
        """Return the values read, of one partition or of all."""
        chosen = [self.records.get(partition, [])] if partition is not None else self.records.values()
        return [record.value for records in chosen for record in records]


async def together(condition: Callable[[], object], *members: Member) -> None:
    """Let several members fetch until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain; {[member.changes for member in members]}"
        await asyncio.gather(*(member.turn(timeout=0.05) for member in members))
