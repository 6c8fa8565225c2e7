"""Replay: a range of a topic published again, into another topic or the same. A group goes back with `groups.move_group`."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from octopus.config import Settings
from octopus.events import TopicPartition
from octopus.operations.moments import Moment
from octopus.operations.partitions import partitions_of
from octopus.operations.progress import Advance, unseen
from octopus.operations.reading import Offsets, Reader
from octopus.operations.records import is_match
from octopus.patterns import Pattern
from octopus.transports.base import Admin, Outgoing, Transport
from octopus.transports.opening import producing


class Range(NamedTuple):
    """A part of a topic. It is fixed: what is published into the same topic later does not belong to it.

    Attributes:
        topic: Its name.
        first: Where each partition begins.
        end: The offset behind the last of each.
    """

    topic: str
    first: Mapping[TopicPartition, int]
    end: Mapping[TopicPartition, int]

    @property
    def size(self) -> int:
        """How many offsets it has; there may be fewer events."""
        return sum(max(0, end - self.first[place]) for place, end in self.end.items())


class Copied(msgspec.Struct, frozen=True):
    """What was published again.

    Attributes:
        topic: What was read.
        into: Where it is again.
        dry_run: Whether it only would be.
        events: How many were chosen and published.
        range: How many offsets were looked at.
    """

    topic: str
    into: str
    dry_run: bool
    events: int
    range: int


async def plan_copy(admin: Admin, topic: str, start: Moment, end: Moment, *, address: str) -> Range:
    """Return the part of a topic between two moments. `copy_range` publishes it again.

    Args:
        admin: Whom to ask.
        topic: What to read again.
        start: Where to begin.
        end: Where to stop.
        address: Of the broker, for the sentence of an error.

    Raises:
        ConfigurationError: An offset is yet to come, and a date is probably meant.
        TopicNotFound: The topic does not exist; the sentence suggests one that does.
    """
    places = await partitions_of(admin, (topic,), address=address)
    await start.refuse_beyond(admin, places, reads=True)
    return Range(topic, await start.resolve(admin, places), await end.resolve(admin, places))


async def copy_range(
    transport: Transport,
    settings: Settings,
    plan: Range,
    into: str,
    *,
    pattern: Pattern | None = None,
    dry_run: bool = False,
    advance: Advance = unseen,
) -> Copied:
    """Publish a part of a topic again, with keys, values and headers.

    Args:
        transport: Where.
        settings: How to consume and produce, and whether a missing topic is made.
        plan: What to read.
        into: The topic to publish to; it may be the same.
        pattern: Only events that match; None for all.
        dry_run: Only count them.
        advance: Told how many more events were looked at.

    Raises:
        OperationFailed: A partition cannot be read on.
        TransportError: The broker does not answer, or refuses; some may be published already.
    """
    count = 0
    if plan.size:
        reader = Reader(transport, settings, [*plan.end], Offsets(plan.first), Offsets(plan.end))
        async with producing(transport, settings) as producer, reader:
            async for _, records in reader:
                messages = [
                    Outgoing(into, record.value, record.key, record.headers)
                    for record in records
                    if is_match(pattern, record.value)
                ]
                count += len(messages)
                if messages and not dry_run:
                    await producer.send_many(messages)
                advance(len(records))
    return Copied(plan.topic, into, dry_run, count, plan.size)
