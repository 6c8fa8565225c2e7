"""Committed offsets of consumer groups."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from octopus.broker.environment import Environment
from octopus.broker.journal import Journal

Partition: TypeAlias = tuple[str, int]
"""(topic, partition)."""


class Committed(NamedTuple):
    """A group's committed offset in one partition.

    Attributes:
        offset: The next offset the group will read.
        metadata: The client's own note, returned as stored.
        time: When it was committed, ms since the epoch.
        leader_epoch: Of the record before it, as the client says; -1 for unknown.
    """

    offset: int
    metadata: str
    time: int
    leader_epoch: int = -1


class OffsetStore:
    """The committed offsets of all groups; durable after `await storage.synced([offsets])`.

    Args:
        path: The journal's file; None keeps everything in memory.
        environment: Shared by all that is stored.

    Raises:
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path | None = None, environment: Environment | None = None) -> None:
        self._groups: dict[str, dict[Partition, Committed]] = {}
        self.journal = Journal(path, environment or Environment(), self._replay, self._snapshot)

    def commit(self, group: str, offsets: Mapping[Partition, Committed]) -> None:
        """Store offsets; all of them or none.

        Raises:
            BrokerError: 56 the disk refused. The offsets may show all the same: to be told of an error and find the commit
                done is a case that a client must expect of any lost answer.
        """
        if not offsets:
            return
        self._groups.setdefault(group, {}).update(offsets)
        self.journal.write(_commit_entry(group, offsets))

    def fetch(self, group: str) -> Mapping[Partition, Committed]:
        """Return a group's offsets; empty for an unknown group."""
        return self._groups.get(group, {})

    def groups(self) -> list[str]:
        """Name the groups that have offsets."""
        return list(self._groups)

    def delete(self, group: str) -> bool:
        """Forget a group; say whether it had offsets.

        Raises:
            BrokerError: 56 the disk refused.
        """
        return self.forget(group, list(self._groups.get(group, {})))

    def forget(self, group: str, partitions: Collection[Partition]) -> bool:
        """Forget a group's offsets in some partitions; say whether there were any.

        Raises:
            BrokerError: 56 the disk refused.
        """
        found = [partition for partition in partitions if partition in self._groups.get(group, {})]
        if not found:
            return False
        self._forget(group, found)
        self.journal.write(["forget", group, found])
        return True

    def keep_topics(self, topics: Collection[str]) -> None:
        """Forget every group's offsets in topics other than these.

        Raises:
            BrokerError: 56 the disk refused.
        """
        for group in self.groups():
            self.forget(group, [partition for partition in self._groups[group] if partition[0] not in topics])

    def expire(self, before: int, keep: Collection[str] = ()) -> list[str]:
        """Forget offsets committed before a time (ms), except those of the groups to keep; name groups now gone.

        Raises:
            BrokerError: 56 the disk refused.
        """
        gone = []
        for group, offsets in list(self._groups.items()):
            if group not in keep:
                self.forget(group, [partition for partition, each in offsets.items() if each.time < before])
                if group not in self._groups:
                    gone.append(group)
        return gone

    def _forget(self, group: str, partitions: Collection[Partition]) -> None:
        offsets = self._groups.get(group, {})
        for partition in partitions:
            offsets.pop(partition, None)
        if not offsets:
            self._groups.pop(group, None)

    def _replay(self, entry: Any) -> None:
        match entry:
            case ["commit", group, offsets]:
                known = self._groups.setdefault(group, {})
                for topic, partition, *committed in offsets:
                    known[topic, partition] = Committed(*committed)
            case ["forget", group, partitions]:
                self._forget(group, [(topic, partition) for topic, partition in partitions])

    def _snapshot(self) -> Iterator[Any]:
        for group, offsets in self._groups.items():
            yield _commit_entry(group, offsets)


def _commit_entry(group: str, offsets: Mapping[Partition, Committed]) -> Any:
    return ["commit", group, [[*partition, *committed] for partition, committed in offsets.items()]]
