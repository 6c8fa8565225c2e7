"""Which deferred records wait in memory, and which go to the end of their topic again. Pure: time is an argument.

A retry topic is read from front to back, and what waits longest may stand in front. So its reader takes records out
of it, up to a limit, and lets each run when it is due. To look beyond the limit it writes some of those it holds anew, at
the topic's end, and settles them where they were: those that have long to go, at most once a minute each.
"""

from typing import Final, Literal
from weakref import WeakSet

LOOK_AGAIN: Final = 60.0
"""Seconds after which a record that waits is looked at again at the latest: a wall clock that is set does not delay it
for longer, and no record is written anew more often."""

LONGEST_STAY: Final = 86_400.0
"""Seconds after which a record that still waits is written anew, so that a topic's retention does not matter."""

MOST_PASSED: Final = 500
"""Records of its partition that may settle behind one that waits; more make the map in a commit's metadata too large."""


class WaitingRoom:
    """The records that a reader of a retry topic holds, of all its partitions.

    Args:
        most_records: When so many wait, some make room until half of them are left.
        most_bytes: The same, of keys and values.
    """

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records = most_records
        self._most_bytes = most_bytes
        self._is_emptying = False
        # Weak: a partition that is given back takes along what it held, without being told.
        self._partitions: WeakSet[WaitingPartition] = WeakSet()

    def __len__(self) -> int:
        return sum(len(partition.held) for partition in self._partitions)

    def open(self) -> "WaitingPartition":
        """Begin with an assignment of a partition."""
        partition = WaitingPartition(self)
        self._partitions.add(partition)
        return partition

    def must_make_room(self, due: float) -> bool:
        """Tell whether a record with this due time, seconds since the epoch, has to leave: the later half goes first."""
        records = size = 0
        total = 0.0
        for partition in self._partitions:
            records += len(partition.held)
            size += partition.size_bytes
            total += partition.total_due
        share = 0.5 if self._is_emptying else 1.0
        self._is_emptying = records > share * self._most_records or size > share * self._most_bytes
        # A second, because a mean of equal numbers is not always equal to them.
        return self._is_emptying and due > total / records - 1.0


class WaitingPartition:
    """The records of one assignment of one partition that wait.

    Attributes:
        is_abandoned: Whether the topic from which they were read is gone: none that has to wait may do so here.
        held: Due time, size, and how many had passed, by offset.
        size_bytes: Of all.
        total_due: The sum of their due times.
    """

    __slots__ = ("__weakref__", "_passed", "_room", "held", "is_abandoned", "size_bytes", "total_due")

    def __init__(self, room: WaitingRoom) -> None:
        self.is_abandoned = False
        self.held: dict[int, tuple[float, int, int]] = {}
        self.size_bytes = 0
        self.total_due = 0.0
        self._passed = 0
        self._room = room

    def look(self, offset: int, due: float, stored: float, size: int, now: float) -> float | Literal["run", "move"]:
        """Decide about a record, each time one of the answers before was a wait.

        Args:
            offset: Its own.
            due: When it may run, seconds since the epoch.
            stored: When it was written, likewise.
            size: Bytes of key and value.
            now: Seconds since the epoch.

        Returns:
            Seconds after which to ask again; or that it is to run; or that it is to be written anew at the topic's end.
            Tell with `leave` when one of the latter is done.
        """
        left = due - now
        if left <= 0:
            self.leave(offset)
            return "run"
        if self.is_abandoned:
            return "move"
        known = self.held.get(offset)
        # Not at first sight: what goes round and round does so once a minute, also where clocks are days apart.
        if (
            left > LOOK_AGAIN
            and known is not None
            and (
                now - stored > LONGEST_STAY or self._passed - known[2] >= MOST_PASSED or self._room.must_make_room(due)
            )
        ):
            return "move"
        if known is None:
            self.held[offset] = (due, size, self._passed)
            self.size_bytes += size
            self.total_due += due
        return min(left, LOOK_AGAIN)

    def leave(self, offset: int) -> None:
        """Forget a record that no longer waits."""
        known = self.held.pop(offset, None)
        if known is not None:
            self.size_bytes -= known[1]
            self.total_due -= known[0]

    def settled(self) -> None:
        """Count a record that is settled."""
        self._passed += 1
