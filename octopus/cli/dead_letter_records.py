"""Dead letters as records of their topics, and where putting them back has got to."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from typing import NamedTuple

from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.events import StoredRecord, TopicPartition
from octopus.pipeline.dead_letters import PREFIX, SUFFIX
from octopus.transports.base import Admin, Transport

REPLAY_GROUP = "octopus.dead-letters"
"""What `dead-letters replay` commits as: behind its offsets everything has been put back."""

_PLACE = re.compile(r"(?P<topic>[a-zA-Z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")


class DeadLetter(NamedTuple):
    """One dead letter.

    Attributes:
        place: The partition it is in.
        record: Itself.
        cause: What publishing_dead_letters it said, by name without the prefix: reason, error, topic, offset, handler, ….
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


def read_letter(place: TopicPartition, record: StoredRecord) -> DeadLetter:
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


async def dead_letter_topics(admin: Admin) -> dict[str, int]:
    """Return the topics that hold dead letters by their name, with their numbers of partitions."""
    return {topic.name: topic.partitions for topic in await admin.topics() if topic.name.endswith(SUFFIX)}


async def waiting(admin: Admin, places: Collection[TopicPartition], *, all: bool = False) -> Waiting:
    """Return what has not been put back yet.

    Args:
        admin: Whom to ask.
        places: Which partitions.
        all: Count also what has been put back, as long as it is stored.
    """
    if not places:
        return Waiting({}, {})
    first, end = await admin.offsets(places, "earliest"), await admin.offsets(places, "latest")
    if not all:
        committed = await admin.group_offsets(REPLAY_GROUP)
        first = {p: max(first[p], committed[p].offset) if p in committed else first[p] for p in places}
    return Waiting(first, end)


async def read_letters(
    transport: Transport, settings: Settings, span: Waiting
) -> AsyncIterator[tuple[TopicPartition, list[DeadLetter]]]:
    """Yield the dead letters of a span, in runs of one partition, in order."""
    from octopus.cli.reading import Reader, Span

    places = [place for place, end in span.end.items() if end > span.first[place]]
    if not places:
        return
    async with Reader(transport, settings, places, Span(span.first), Span(span.end)) as reader:
        async for place, records in reader:
            yield place, [read_letter(place, record) for record in records]
