"""Where a group begins with partitions of which it has committed nothing. Pure."""

import contextlib
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from octopus.events import TopicPartition
from octopus.routing import StartAt
from octopus.runner.commit_metadata import without_topic_id
from octopus.transports.base import Commit, Start

ANCHOR = "octopus-anchor-1"


class Anchor(NamedTuple):
    """When a group began to read a topic, as an anchor's metadata says it: `octopus-anchor-1 PARTITIONS SECONDS`.

    Attributes:
        partitions: How many the topic had.
        time: Seconds since the epoch.
    """

    partitions: int
    time: float

    @classmethod
    def read(cls, metadata: str) -> "Anchor | None":
        """Return what an anchor says; None for any other commit."""
        match metadata.split(" "):
            case [prefix, partitions, moment] if prefix == ANCHOR:
                with contextlib.suppress(ValueError):
                    return cls(int(partitions), float(moment))
        return None

    @property
    def text(self) -> str:
        """The metadata."""
        return f"{ANCHOR} {self.partitions} {self.time:.3f}"


def anchors_of(committed: Mapping[TopicPartition, Commit | None]) -> dict[str, Anchor | None]:
    """Return when a group began with each topic that it has committed something of; None where no anchor is left."""
    anchors: dict[str, Anchor | None] = {}
    for partition, commit in committed.items():
        if commit is not None:
            anchors[partition.topic] = Anchor.read(without_topic_id(commit.metadata)) or anchors.get(partition.topic)
    return anchors


def starts_of(
    fresh: Collection[TopicPartition],
    anchors: Mapping[str, Anchor | None],
    start: StartAt,
    otherwise: Mapping[str, Anchor],
) -> dict[Start, list[TopicPartition]]:
    """Return which partitions without a commit begin where.

    A partition that appears when the group is there already is read from its beginning: with `latest`, a crash or a new
    partition would otherwise lose what came in between. A member that is assigned its share a moment after another one does
    not take it for new, and "latest" means the same moment for both.

    Args:
        fresh: Those partitions.
        anchors: When the group began, of topics that it knows.
        start: As registered.
        otherwise: What to take for the beginning of the others.
    """
    starts: dict[Start, list[TopicPartition]] = {}
    for partition in fresh:
        anchor = anchors.get(partition.topic, otherwise[partition.topic])
        place: Start = "earliest"
        if anchor is not None and partition.partition < anchor.partitions:
            place = resolve_start(start, anchor.time)
            if place == "latest" and partition.topic in anchors:
                place = anchor.time
        starts.setdefault(place, []).append(partition)
    return starts


def resolve_start(start: StartAt, now: float) -> Start:
    """Turn a handler's `start=` into what brokers understand.

    Args:
        start: As registered.
        now: Seconds since the epoch.
    """
    match start:
        case datetime():
            return start.timestamp()
        case timedelta():
            return now - start.total_seconds()
        case _:
            return start
