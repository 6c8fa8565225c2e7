"""The seam's classes on top of the in-process broker."""

import asyncio
import contextlib
import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

from octopus.errors import OffsetOutOfRange, TopicNotFound, TransportError
from octopus.events import Published, Record, TopicPartition
from octopus.transports.base import (
    LARGE,
    MAX_BYTES,
    NO_IDS,
    SIZE_LIMIT,
    AssignmentListener,
    Chunk,
    Commit,
    Fetched,
    GroupInfo,
    GroupMember,
    Outgoing,
    Start,
    TopicInfo,
    Unreadable,
)
from octopus.transports.memory.broker import Log, Member, MemoryBroker, Subscription, as_subscription
from octopus.transports.memory.storing import StoringProducer
from octopus.transports.memory.transactions import MemoryTransactionalProducer
from octopus.transports.queueing import Call


class MemoryTransport:
    """A way to an in-process broker.

    Args:
        broker: Shared with other transports that see the same topics; a new one if None.
    """

    name = "memory"

    def __init__(self, broker: MemoryBroker | None = None, *, address: str = "memory://") -> None:
        self.broker = broker or MemoryBroker()
        self.address = address

    async def open(self) -> None:
        """Do nothing: the broker is here."""

    async def close(self) -> None:
        """Do nothing: records live as long as the broker object."""

    def consumer(
        self, group: str, topics: "Collection[str] | re.Pattern[str]", *, client_id: str = "octopus", **_options: Any
    ) -> "MemoryConsumer":
        """Return a consumer; options that only concern a network are ignored."""
        return MemoryConsumer(self.broker, group, as_subscription(topics), client_id)

    def producer(self, **_options: Any) -> "MemoryProducer":
        """Return a producer."""
        return MemoryProducer(self.broker)

    def transactional_producer(self, transactional_id: str, **_options: Any) -> MemoryTransactionalProducer:
        """Return a producer that shares its fate with the offsets it commits."""
        return MemoryTransactionalProducer(self.broker, transactional_id)

    def admin(self) -> "MemoryAdmin":
        """Return an admin client."""
        return MemoryAdmin(self.broker)


class MemoryConsumer:
    """A group member. Its task gives partitions back and takes them when the group says so."""

    def __init__(self, broker: MemoryBroker, group: str, subscription: Subscription, client_id: str) -> None:
        self._broker = broker
        self._group = group
        self._subscription = subscription
        self._client_id = client_id
        self._positions: dict[TopicPartition, int] = {}
        self._topic_ids: dict[TopicPartition, str | None] = {}  # the topic of each position
        self._held: frozenset[TopicPartition] = frozenset()  # partitions that the listener was told of
        self._readable: list[
            TopicPartition
        ] = []  # of those, the ones with a position; one that had its turn goes to the end
        self._task: asyncio.Task[None] | None = None
        self._member: Member | None = None
        self._failure: BaseException | None = None

    async def start(self, listener: AssignmentListener) -> None:
        """Join the group."""
        if isinstance(self._subscription, frozenset):
            for topic in self._subscription:
                self._broker.ensure_topic(topic)
        self._member = self._broker.join(self._group, self._client_id, self._subscription)
        self._task = asyncio.create_task(self._take_part(listener))

    async def stop(self) -> None:
        """Leave the group."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._member is not None:
            self._broker.leave(self._group, self._member)

    async def _take_part(self, listener: AssignmentListener) -> None:
        """Follow the group until cancelled: one change at a time."""
        try:
            while True:
                version = self._broker.changed.version
                if not await self._follow(listener):
                    await self._broker.changed.changed(version, None)
        except Exception as error:  # noqa: BLE001 - a listener's error surfaces from the next fetch
            self._failure = error
            self._broker.changed.notify()

    async def _follow(self, listener: AssignmentListener) -> bool:
        """Take the next step of a rebalance; False when there is nothing to do."""
        assert self._member is not None
        group, member = self._broker.group(self._group), self._member
        if member.expelled:
            lost = self._release()
            if lost:
                await listener.lost(lost)
            self._member = self._broker.join(self._group, self._client_id, self._subscription)
        elif group.rebalancing and not member.ready:
            self._readable = []
            if self._held:
                await listener.revoked(self._held)
            if not member.expelled:
                self._release()
                self._broker.give_back(self._group, member)
        elif member.partitions and not self._held:
            self._held = member.partitions
            await listener.assigned(self._held)
            if unset := self._held - set(self._positions):
                raise TransportError(f"{', '.join(map(str, sorted(unset)))} were assigned but given no position.")
            self._readable = sorted(self._held)
            self._broker.changed.notify()
        else:
            return False
        return True

    def _release(self) -> frozenset[TopicPartition]:
        held, self._held, self._readable = self._held, frozenset(), []
        self._positions.clear()
        self._topic_ids.clear()
        return held

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        *,
        max_records: int,
        timeout: float,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        """Return records, waiting up to `timeout` for the first."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            version = self._broker.changed.version
            if self._failure is not None:
                raise self._failure
            self._broker.faults.check("fetch")
            if found := self._read(partitions, max_records, max_bytes):
                return found
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                return []
            await self._broker.changed.changed(version, remaining)

    def _read(self, partitions: Collection[TopicPartition], max_records: int, max_bytes: int) -> list[Fetched]:
        found: list[Fetched] = []
        for partition in [*self._readable]:
            if partition not in partitions or max_records <= 0 or max_bytes <= 0:
                continue
            position = self._positions[partition]
            try:
                log = self._log(partition)
            except TransportError as error:
                found.append(Unreadable(partition, error))
                continue
            if not log.start <= position <= log.end:
                reason = f"{partition}@{position} is outside the log ({log.start} to {log.end}). Choose where to go on."
                found.append(Unreadable(partition, OffsetOutOfRange(reason)))
                continue
            fault = self._broker.faults.unreadable.get(partition)
            limit = max_records if fault is None else min(max_records, max(0, fault[0] - position))
            chunk = _chunk(partition, log, position, limit, max_bytes)
            self._positions[partition] = chunk.next_offset
            max_records -= len(chunk.records)
            max_bytes -= chunk.size_bytes
            if chunk.next_offset > position:
                found.append(chunk)
                self._readable.remove(partition)
                self._readable.append(partition)
            if fault is not None and chunk.next_offset >= fault[0]:
                found.append(Unreadable(partition, fault[1]))
        return found

    def _log(self, partition: TopicPartition) -> Log:
        wanted, there = self._topic_ids.get(partition), self._broker.topic_ids.get(partition.topic)
        if wanted is not None and there is not None and wanted != there:
            raise TopicNotFound(f"The topic {partition.topic!r} with the id {wanted} is gone.")
        return self._broker.log(partition)

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Store offsets."""
        if self._member is not None and offsets:
            self._broker.commit(self._group, self._member, offsets)

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit | None]:
        """Return committed offsets."""
        self._broker.faults.check("committed")
        stored = self._broker.group(self._group).offsets
        return {partition: stored.get(partition) for partition in partitions}

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Return the ids of those topics that are there."""
        self._broker.faults.check("topic_ids")
        return self._broker.ids_of(topics)

    async def seek(self, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> None:
        """Set positions."""
        self._positions.update(offsets)
        self._topic_ids |= {partition: topic_ids.get(partition.topic) for partition in offsets}

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start."""
        return {partition: self._broker.offset_of(partition, start) for partition in partitions}

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the partition's end; None when its topic is gone."""
        try:
            return self._broker.log(partition).stable_end
        except TopicNotFound:
            return None

    def known_partitions(self) -> set[TopicPartition]:
        """Return the partitions of the subscribed topics."""
        return set(self._broker.matching(self._subscription))


def _chunk(partition: TopicPartition, log: Log, position: int, limit: int, max_bytes: int) -> Chunk:
    records, next_offset = log.read(position, limit)
    sizes = [*accumulate(map(_size, records))]
    if sizes and sizes[-1] > max_bytes:
        records = records[: bisect_left(sizes, max_bytes) + 1]
        next_offset = records[-1].offset + 1
    large = {record.offset: size for record in records if (size := _size(record)) >= LARGE}
    return Chunk(partition, records, next_offset, sizes[len(records) - 1] if records else 0, large)


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")


class MemoryProducer(StoringProducer):
    """Publishes to the in-process broker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing: everything is stored when `send` returns."""

    def store(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Store messages in order; one that cannot be stored does not keep the others from it."""
        return self._broker.append(messages)

    def queue_call(self, call: Call) -> None:
        """Store the messages of a call."""
        try:
            call.finish(self._broker.append(call.messages))
        except TransportError as error:
            call.error = error
            call.finish(error.published or [None] * len(call.messages))

    async def answered(self, topic: str) -> None:
        """Do nothing: calls are finished at once."""


class MemoryAdmin:
    """Looks at and changes the in-process broker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def topics(self) -> list[TopicInfo]:
        """Return all topics."""
        return [TopicInfo(name, len(logs), 1) for name, logs in sorted(self._broker.topics.items())]

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Return the ids of those topics that are there."""
        return self._broker.ids_of(topics)

    async def create_topic(
        self, name: str, *, partitions: int = 1, replication: int = -1, config: Mapping[str, str] | None = None
    ) -> bool:
        """Create a topic; False when it was there."""
        return self._broker.create_topic(name, partitions, config)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        self._broker.delete_topic(name)

    async def topic_config(self, name: str) -> dict[str, str]:
        """Return a topic's settings."""
        self._broker.logs(name)
        return {SIZE_LIMIT: str(self._broker.max_record_bytes_of(name)), **self._broker.configs[name]}

    async def alter_topic(
        self, name: str, *, config: Mapping[str, str] | None = None, partitions: int | None = None
    ) -> None:
        """Change settings or add partitions."""
        logs = self._broker.logs(name)
        self._broker.configs[name].update(config or {})
        if partitions is not None:
            if partitions < len(logs):
                raise TransportError(f"Topic {name!r} has {len(logs)} partitions; they can only become more.")
            self._broker.add_partitions(name, partitions)

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start."""
        return {partition: self._broker.offset_of(partition, start) for partition in partitions}

    async def groups(self) -> list[GroupInfo]:
        """Return all groups."""
        return [
            GroupInfo(
                name,
                group.state,
                tuple(
                    GroupMember(member.member_id, member.client_id, "memory", tuple(sorted(member.partitions)))
                    for member in group.members.values()
                ),
            )
            for name, group in sorted(self._broker.groups.items())
        ]

    async def group(self, name: str) -> GroupInfo:
        """Return one group."""
        return next((each for each in await self.groups() if each.name == name), GroupInfo(name, "Dead"))

    async def group_offsets(self, group: str) -> dict[TopicPartition, Commit]:
        """Return a group's committed offsets."""
        known = self._broker.groups.get(group)
        return dict(known.offsets) if known is not None else {}

    async def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Overwrite offsets of a group without members."""
        self._refuse_members(group)
        self._broker.group(group).offsets.update(offsets)

    async def remove_members(self, group: str, members: Sequence[tuple[str, str | None]]) -> None:
        """Take members out of a group. No member has an instance here."""
        known = self._broker.group(group).members
        for member_id in [each for each, _ in members if each in known]:
            self._broker.leave(group, known[member_id])

    async def delete_group(self, group: str) -> None:
        """Forget a group without members."""
        self._refuse_members(group)
        self._broker.groups.pop(group, None)

    def _refuse_members(self, group: str) -> None:
        known = self._broker.groups.get(group)
        if known is not None and known.members:
            raise TransportError(f"Group {group!r} has members: {len(known.members)}. Stop them first.")
