"""Dead letters: counting them, and reading them with their causes. `putting_back.py` puts them back where they were."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from typing import NamedTuple

import msgspec

from octopus.config import Settings
from octopus.errors import ConfigurationError, OperationFailed, TopicNotFound
from octopus.events import StoredRecord, TopicPartition
from octopus.operations.partitions import partitions_of
from octopus.operations.reading import Offsets, Reader
from octopus.operations.records import ReadableRecord, readable, readable_headers
from octopus.pipeline.dead_letters import PREFIX, SUFFIX, original_headers
from octopus.transports.base import Admin, Transport
from octopus.transports.opening import administering

REPLAY_GROUP = "octopus.dead-letters"
"""What putting them back commits as: before its offsets everything has been put back."""

_PLACE = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")


class ReadableDeadLetter(ReadableRecord, frozen=True):
    """A dead letter, its headers without those that say why, for `msgspec.json.encode`.

    Attributes:
        cause: As `DeadLetter` has it.
    """

    cause: dict[str, str]


class DeadLetter(NamedTuple):
    """One dead letter.

    Attributes:
        place: The partition it is in.
        record: Itself.
        cause: Why and from where, by the name of the header without its prefix: reason, error, topic, offset, handler, ….
    """

    place: TopicPartition
    record: StoredRecord
    cause: Mapping[str, str]

    @property
    def coordinates(self) -> str:
        """Where it is: `topic[partition]@offset`."""
        return f"{self.place}@{self.record.offset}"

    @property
    def origin(self) -> str:
        """Where it was: `topic[partition]@offset`, or `-`."""
        cause = self.cause
        return (
            f"{cause['topic']}[{cause.get('partition', '?')}]@{cause.get('offset', '?')}" if "topic" in cause else "-"
        )

    @property
    def readable(self) -> ReadableDeadLetter:
        """Itself as people and programs read it."""
        found = msgspec.structs.asdict(readable(self.place, self.record))
        headers = readable_headers(original_headers(self.record.headers))
        return ReadableDeadLetter(**{**found, "headers": headers}, cause=dict(self.cause))


class DeadLetterCount(msgspec.Struct, frozen=True):
    """How many dead letters a topic has.

    Attributes:
        topic: The dead-letter topic.
        waiting: Those that were not put back yet.
        stored: All that are there.
    """

    topic: str
    waiting: int
    stored: int


class Waiting(NamedTuple):
    """Where dead letters wait to be put back, by partition.

    Attributes:
        first: The first that waits.
        end: Behind the last.
    """

    first: Mapping[TopicPartition, int]
    end: Mapping[TopicPartition, int]

    @property
    def counts(self) -> Counter[str]:
        """How many wait in each topic."""
        counts: Counter[str] = Counter()
        for place, end in self.end.items():
            counts[place.topic] += max(0, end - self.first[place])
        return counts

    def newest(self, most: int) -> "Waiting":
        """Return the newest so many of each partition."""
        return Waiting({place: max(first, self.end[place] - most) for place, first in self.first.items()}, self.end)


def read_dead_letter(place: TopicPartition, record: StoredRecord) -> DeadLetter:
    """Return a record of a dead-letter topic with its cause."""
    cause = {
        name.removeprefix(PREFIX): (value or b"").decode("utf-8", "backslashreplace")
        for name, value in record.headers
        if name.startswith(PREFIX)
    }
    return DeadLetter(place, record, cause)


def read_place(text: str) -> tuple[TopicPartition, int]:
    """Understand `topic[partition]@offset`. Raises `ConfigurationError`."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{text!r} is no place of an event: write topic[partition]@offset, as list shows it.")
    return TopicPartition(found["topic"], int(found["partition"])), int(found["offset"])


async def count_dead_letters(admin: Admin, *, stored: bool = False) -> list[DeadLetterCount]:
    """Return how many dead letters each dead-letter topic has, by name.

    Args:
        admin: Whom to ask.
        stored: Count as waiting also what has been put back, as long as it is stored.

    Raises:
        TransportError: The broker does not answer, or refuses.
    """
    topics = {topic.name: topic.partitions for topic in await admin.topics() if topic.name.endswith(SUFFIX)}
    places = [TopicPartition(name, number) for name, partitions in topics.items() for number in range(partitions)]
    there = (await _waiting(admin, places, stored=True)).counts
    waiting = there if stored else (await _waiting(admin, places)).counts
    return [DeadLetterCount(name, waiting[name], there[name]) for name in sorted(topics)]


async def find_waiting(admin: Admin, topic: str, *, stored: bool = False, address: str) -> Waiting:
    """Return where the dead letters of a topic wait; nowhere when it has none.

    Args:
        admin: Whom to ask.
        topic: The topic they were in, or the dead-letter topic itself.
        stored: Also those that were put back, as long as they are stored.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: Neither is there.
    """
    known = {each.name for each in await admin.topics()}
    name = topic if topic in known and topic.endswith(SUFFIX) else topic + SUFFIX
    if name in known:
        return await _waiting(admin, await partitions_of(admin, (name,), address=address), stored=stored)
    if topic in known:
        return Waiting({}, {})
    raise TopicNotFound(f"There is no topic {topic!r} on {address}. See octopus dead-letters list.")


async def read_dead_letters(
    transport: Transport, settings: Settings, span: Waiting
) -> AsyncIterator[tuple[TopicPartition, list[DeadLetter]]]:
    """Yield the dead letters of a span, in runs of one partition, in order.

    Args:
        transport: Where.
        settings: How to consume.
        span: Which.

    Raises:
        OperationFailed: A partition cannot be read on.
        TransportError: The broker does not answer, or refuses.
    """
    places = [place for place, end in span.end.items() if end > span.first[place]]
    if not places:
        return
    async with Reader(transport, settings, places, Offsets(span.first), Offsets(span.end)) as reader:
        async for place, records in reader:
            yield place, [read_dead_letter(place, record) for record in records]


async def show_dead_letter(transport: Transport, settings: Settings, place: TopicPartition, offset: int) -> DeadLetter:
    """Return one dead letter.

    Args:
        transport: Where.
        settings: How to consume.
        place: The partition it is in.
        offset: Its own.

    Raises:
        OperationFailed: There is nothing, or nothing any more.
        TopicNotFound: The topic or partition does not exist.
    """
    async with administering(transport) as admin:
        await partitions_of(admin, (place.topic,), (place.partition,), address=transport.address)
        end = (await admin.offsets([place], "latest"))[place]
        first = (await admin.offsets([place], "earliest"))[place]
    found: list[DeadLetter] = []
    if first <= offset < end:
        async for _, dead_letters in read_dead_letters(
            transport, settings, Waiting({place: offset}, {place: offset + 1})
        ):
            found += dead_letters
    if not found:
        raise OperationFailed(f"There is nothing at {place}@{offset}; {place} holds {first} to {end - 1}.")
    return found[0]


async def _waiting(admin: Admin, places: Collection[TopicPartition], *, stored: bool = False) -> Waiting:
    if not places:
        return Waiting({}, {})
    first, end = await admin.offsets(places, "earliest"), await admin.offsets(places, "latest")
    if not stored:
        committed = await admin.group_offsets(REPLAY_GROUP)
        first = {p: max(first[p], committed[p].offset) if p in committed else first[p] for p in places}
    return Waiting(first, end)
