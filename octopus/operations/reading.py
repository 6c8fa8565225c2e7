"""Reads topics without being part of an existing group.

The seam has readers only as members of groups, so this one joins a group of its own, commits nothing, and removes the
group when it leaves. With a group that is named it commits what has been shown, as a worker would.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol, Self

from octopus.config import Settings
from octopus.errors import OperationFailed, TopicRecreated, TransportError
from octopus.events import StoredRecord, TopicPartition
from octopus.runner.commit_metadata import topic_id_of, with_topic_id
from octopus.transports.base import Admin, Chunk, Commit, Consumer, Transport, Unreadable
from octopus.transports.opening import administering, consumer_options
from octopus.worker.known_topics import is_another

AT_ONCE = 500
WAIT = 0.25


class Bound(Protocol):
    """Where reading begins or ends in each of several partitions: a `Moment`, or `Offsets`."""

    async def resolve(self, admin: Admin, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset in each partition."""
        ...


class Offsets:
    """Offsets that are known already.

    Args:
        offsets: By partition.
    """

    def __init__(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._offsets = offsets

    async def resolve(self, admin: Admin, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return them."""
        return self._offsets


class Reader:
    """Reads partitions from one place to another.

        async with Reader(transport, settings, partitions, start) as reader:
            async for partition, record in reader: ...

    Args:
        transport: Where.
        settings: Of the consumer.
        partitions: What to read.
        start: Where to begin; with a group, where nothing is committed.
        end: Where to stop; None reads for ever.
        group: A group to read as; what was handed out is committed. None for none.
    """

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        partitions: Collection[TopicPartition],
        start: Bound,
        end: Bound | None = None,
        group: str | None = None,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._wanted = frozenset(partitions)
        self._start = start
        self._end = end
        self._group = group
        self._stack = contextlib.AsyncExitStack()
        self._positions: dict[TopicPartition, int] = {}  # of what was handed out: the next
        self._ends: Mapping[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        self._topic_ids: dict[str, str | None] = {}  # of what is read

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self._admin = await stack.enter_async_context(administering(self._transport))
            self._starts = await self._start.resolve(self._admin, self._wanted)
            if self._end is not None:
                self._ends = await self._end.resolve(self._admin, self._wanted)
            name = self._group or f"octopus.consume.{secrets.token_hex(6)}"
            self._consumer: Consumer = self._transport.consumer(
                name,
                sorted({partition.topic for partition in self._wanted}),
                **consumer_options(self._settings.consumer, self._settings.worker),
            )
            await self._consumer.start(self)
            if self._group is None:
                stack.push_async_callback(self._forget, name)
            stack.push_async_callback(self._consumer.stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._group is not None:
                await self.commit()
        finally:
            await self._stack.aclose()

    async def __aiter__(self) -> AsyncIterator[tuple[TopicPartition, Sequence[StoredRecord]]]:
        """Yield what comes, in runs of one partition; ends when everything up to the end was handed out."""
        while not self._has_ended():
            open_partitions = {p for p in self._assigned if p in self._wanted and not self._is_read(p)}
            for fetched in await self._consumer.fetch(open_partitions, max_records=AT_ONCE, timeout=WAIT):
                match fetched:
                    case Chunk(partition, unread, next_offset):
                        records = [*unread]
                        end = self._ends.get(partition)
                        inside = records if end is None else [record for record in records if record.offset < end]
                        if inside:
                            yield partition, inside
                        self._positions[partition] = (
                            next_offset if len(inside) == len(records) else (end or next_offset)
                        )
                    case Unreadable(partition, error):
                        raise OperationFailed(f"{partition} cannot be read on: {error}")

    @property
    def range(self) -> int | None:
        """How many offsets lie between start and end; None where there is no end, or a group says where to begin."""
        if self._end is None or self._group is not None:
            return None
        return sum(max(0, self._ends[place] - self._starts[place]) for place in self._wanted)

    def note(self, partition: TopicPartition, offset: int) -> None:
        """Take it that everything before `offset` is done with, though the run was not read to its end."""
        self._positions[partition] = offset

    async def commit(self) -> None:
        """Store the position of what is done with."""
        offsets = {
            place: Commit(offset, with_topic_id("", self._topic_ids.get(place.topic)))
            for place, offset in self._positions.items()
            if place in self._wanted
        }
        if offsets:
            await self._consumer.commit(offsets)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Begin where the group stands, where we were, or at the start: in the same topics, not in others of their names."""
        there = await self._consumer.topic_ids({partition.topic for partition in partitions})
        self._topic_ids = there | self._topic_ids
        for topic, topic_id in there.items():
            _check_same(topic, self._topic_ids[topic], topic_id)
        positions = {p: self._positions.get(p, self._starts.get(p, 0)) for p in partitions}
        if self._group is not None:
            committed = await self._consumer.committed(partitions)
            for partition, commit in committed.items():
                if commit is not None:
                    _check_same(partition.topic, topic_id_of(commit.metadata), there.get(partition.topic), self._group)
                    positions[partition] = commit.offset
        await self._consumer.seek(positions, there)
        self._positions |= positions
        self._assigned = {*partitions}

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Commit before others take over."""
        if self._group is not None:
            await self.commit()
        await self.lost(partitions)

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Forget them."""
        self._assigned -= {*partitions}
        for partition in partitions:
            self._positions.pop(partition, None) if self._group is not None else None

    def _is_read(self, partition: TopicPartition) -> bool:
        end = self._ends.get(partition)
        return end is not None and self._positions.get(partition, self._starts[partition]) >= end

    def _has_ended(self) -> bool:
        return self._end is not None and all(map(self._is_read, self._wanted))

    async def _forget(self, group: str) -> None:
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(3):
                await self._admin.delete_group(group)


def _check_same(topic: str, expected: str | None, found: str | None, group: str | None = None) -> None:
    if is_another(expected, found):
        hint = f" Say where group {group!r} begins: octopus groups reset {group} --to earliest." if group else ""
        raise TopicRecreated(
            f"Topic {topic!r} was deleted and made again: its id was {expected}, now it is {found}, so that offsets of the old "
            f"one mean nothing.{hint}"
        )
