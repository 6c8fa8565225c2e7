"""Where groups stand: how far behind the end of each log, and whether what they have committed is of that log at all."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.routing import RETRY_SUFFIX
from octopus.runner.commit_metadata import topic_id_of
from octopus.text import first_few
from octopus.transports.base import Admin, Commit
from octopus.worker.known_topics import Recreated, is_another


class Location(StrEnum):
    """Where a committed offset is."""

    INSIDE = "in the log"
    ANOTHER_TOPIC = "in an earlier topic"
    BEFORE = "before the log"
    BEHIND = "behind the log"


_WHY = {
    Location.ANOTHER_TOPIC: "the topic was deleted and made again, and what the group has committed was of the old one",
    Location.BEFORE: "the events where it goes on were deleted",
    Location.BEHIND: "the log ends before the offset where it goes on, so it was cut short",
}


class Standing(NamedTuple):
    """Where a group stands in a partition.

    Attributes:
        lag: Events that are there and that it has not finished; None where that cannot be known.
        location: Where its committed offset is, as far as that can be known.
        is_ours: Whether the commit says of which topic it is, which other clients than Octopus do not.
    """

    lag: int | None
    location: Location
    is_ours: bool


class Misplaced(NamedTuple):
    """Why a group cannot read partitions of a topic, and what to do about it."""

    group: str
    location: Location
    partitions: list[TopicPartition]

    @property
    def sentence(self) -> str:
        """Say which, and why."""
        return f"{self.group} cannot read {first_few(self.partitions)}: {_WHY[self.location]}"

    @property
    def mend(self) -> str:
        """Say what to do; where the group begins is the user's decision."""
        which = (
            "" if self.location is Location.ANOTHER_TOPIC else "".join(f" --partition {p}" for _, p in self.partitions)
        )
        command = f"octopus groups reset {self.group} --topic {self.partitions[0].topic}{which} --to earliest"
        return f"Stop the group's workers, say where it goes on ({command}), and start them again."


def standing(commit: Commit, topic_id: str | None, start: int | None, end: int | None) -> Standing:
    """Compare a commit with the log as it is now.

    Args:
        commit: Of the group.
        topic_id: Of the topic that is there; None when it is unknown.
        start: The first offset of the log; None when it is unknown.
        end: Behind its last one; None when it is unknown.
    """
    of = topic_id_of(commit.metadata)
    if is_another(of, topic_id):
        return Standing(None if start is None or end is None else end - start, Location.ANOTHER_TOPIC, True)
    if start is None or end is None:
        return Standing(None, Location.INSIDE, of is not None)
    location = Location.BEFORE if commit.offset < start else Location.BEHIND if commit.offset > end else Location.INSIDE
    return Standing(max(0, end - max(commit.offset, start)), location, of is not None)


async def standings_of(admin: Admin, committed: Mapping[TopicPartition, Commit]) -> dict[TopicPartition, Standing]:
    """Return where a group stands, for each partition with a committed offset whose topic still exists."""
    topics = {topic.name: topic.partitions for topic in await admin.topics()} if committed else {}
    alive = {place: commit for place, commit in committed.items() if place.partition < topics.get(place.topic, 0)}
    if not alive:
        return {}
    ids = await admin.topic_ids({place.topic for place in alive})
    starts, ends = await _bounds_of(admin, alive, "earliest"), await _bounds_of(admin, alive, "latest")
    return {
        place: standing(commit, ids.get(place.topic), starts[place], ends[place]) for place, commit in alive.items()
    }


async def _bounds_of(
    admin: Admin, places: Collection[TopicPartition], bound: Literal["earliest", "latest"]
) -> dict[TopicPartition, int | None]:
    """Return where partitions begin or end, None for those that do not say."""
    try:
        return {**await admin.offsets(places, bound)}
    except TransportError:
        if len(places) == 1:
            return dict.fromkeys(places)
    each = await asyncio.gather(*[_bounds_of(admin, [place], bound) for place in places])
    return {place: offset for offsets in each for place, offset in offsets.items()}


def lag_of(standings: Mapping[TopicPartition, Standing]) -> int | None:
    """Return the lag of all partitions together, None when one of them is not known."""
    known = [each.lag for each in standings.values() if each.lag is not None]
    return sum(known) if len(known) == len(standings) else None


def misplaced(
    group: str, standings: Mapping[TopicPartition, Standing], recreated: Recreated, *, is_ours: bool = False
) -> Iterator[Misplaced]:
    """Yield what a group of Octopus cannot read on because of where it stands, by topic and reason.

    Args:
        group: Its name.
        standings: Where it stands.
        recreated: What it does when a topic was made again. Retries begin such a topic anew by themselves.
        is_ours: Whether it is known to be a group of Octopus; otherwise its commits tell. Other clients go on by themselves.
    """
    begins_anew = recreated == "earliest" or group.endswith(RETRY_SUFFIX)
    found: dict[tuple[str, Location], list[TopicPartition]] = {}
    for partition, (_, location, says_so) in sorted(standings.items()):
        if (
            location is Location.INSIDE
            or not (is_ours or says_so)
            or (location is Location.ANOTHER_TOPIC and begins_anew)
        ):
            continue
        found.setdefault((partition.topic, location), []).append(partition)
    for (_, location), partitions in found.items():
        yield Misplaced(group, location, partitions)
