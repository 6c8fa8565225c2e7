"""Which offset may be committed, when records settle in any order. Pure.

Contiguous means contiguous **in received order**, not plus one: compaction, transactions and control records leave gaps.
So the ledger remembers what it received, and the committable offset is the first received one that is not settled, or
the position behind everything received when nothing is open.

Invariants, between any two steps:

- `committable` never goes back, and is never beyond `position`.
- `_runs` are what was received, from the run with the first open offset on, and increase. There are runs exactly while an offset is
  open; then `_first` is the first open one, in the first run, and `_stop` is where that run ends.
- `_settled` are offsets that were received and settled, all beyond `_first`: it is empty when nothing is open.
- `in_flight` is the number of open offsets: those of the runs from `_first` on that are not in `_settled`.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from octopus import invariants
from octopus.unread import Records, Unread


def offsets_of(records: Records) -> Sequence[int]:
    """Return the offsets of records of a partition, which are in offset order: a range when none is missing between them."""
    if isinstance(records, Unread):
        return records.offsets
    if not records:
        return ()
    first, last = records[0].offset, records[-1].offset
    # Offsets increase, so that many of them between these two are all there are.
    return range(first, last + 1) if last - first + 1 == len(records) else [record.offset for record in records]


@invariants.hold_after("receive", "settle", "settle_run")
class OffsetLedger:
    """Received and settled offsets of one assignment of one partition.

    What was received is kept as runs of consecutive offsets, so that records which arrive and settle in order, as nearly all
    do, cost a step of a number each and no memory.

    Args:
        position: The offset that will be received next.
        settled_ahead: Inclusive ranges at or above `position` that an earlier owner settled (`decode_map` reads them).

    Attributes:
        settled_count: How many records were settled since the start.
    """

    __slots__ = ("_ahead", "_first", "_position", "_received", "_runs", "_settled", "_stop", "settled_count")

    def __init__(self, position: int, settled_ahead: Sequence[tuple[int, int]] = ()) -> None:
        self._position = position
        self._first = position  # the first open offset, while there are runs
        self._stop = position  # where the first run ends
        self._runs: deque[range] = deque()  # received, in order, from the one with the first open offset on
        self._settled: set[int] = set()  # settled, but behind an open one
        self._ahead = deque(settled_ahead)
        self._received = 0
        self.settled_count = 0

    def receive(self, offsets: Sequence[int], position: int) -> Collection[int]:
        """Note records as received, in order, and where the next fetch starts.

        Args:
            offsets: A range costs the same at any length.
            position: Behind the last of them.

        Returns:
            Those an earlier owner settled already: not to be run again.
        """
        runs = self._runs
        was_empty = not runs
        runs.extend((offsets,) if isinstance(offsets, range) and offsets else _runs(offsets))
        if was_empty and runs:
            self._first, self._stop = runs[0].start, runs[0].stop
        self._received += len(offsets)
        self._position = position
        if not self._ahead:
            return ()
        known = [offset for offset in offsets if self._was_settled(offset)]
        for offset in known:
            self.settle(offset)
        self._received -= len(known)
        self.settled_count -= len(known)
        return known

    def settle(self, offset: int) -> None:
        """Note that a received record's outcome is final.

        Raises:
            ValueError: It was settled before, or never received.
        """
        runs, settled, first = self._runs, self._settled, self._first
        if not runs or offset < first or offset in settled or offset >= runs[-1].stop:
            raise ValueError(f"offset {offset} was settled twice, or never received")
        self.settled_count += 1
        if offset != first:
            settled.add(offset)
            return
        first += 1
        if first == self._stop:
            first = self._next_run()
        while settled and first in settled:
            settled.remove(first)
            first += 1
            if first == self._stop:
                first = self._next_run()
        self._first = first

    def settle_run(self, offsets: Sequence[int]) -> None:
        """Settle several, in increasing order. Raises as `settle`.

        Args:
            offsets: A range of any length costs a step when it is all of what is open at first.
        """
        if (
            isinstance(offsets, range)
            and not self._settled
            and offsets.start == self._first < offsets.stop <= self._stop
        ):
            self.settled_count += len(offsets)
            self._first = offsets.stop if offsets.stop < self._stop else self._next_run()
            return
        for offset in offsets:
            self.settle(offset)

    def _next_run(self) -> int:
        """Leave the first run, which is settled, and return the first offset of the next one."""
        self._runs.popleft()
        if not self._runs:
            self._stop = self._position
            return self._position
        following = self._runs[0]
        self._stop = following.stop
        return following.start

    @property
    def committable(self) -> int:
        """The offset to commit: everything received before it is settled."""
        return self._first if self._runs else self._position

    @property
    def position(self) -> int:
        """The offset that will be received next."""
        return self._position

    @property
    def in_flight(self) -> int:
        """How many records are received and not settled."""
        return self._received - self.settled_count

    @property
    def ahead(self) -> int:
        """How many records are settled but cannot be committed yet, because an earlier one is open."""
        return len(self._settled)

    def is_open(self, offset: int) -> bool:
        """Whether a received record is not settled."""
        return offset >= self.committable and offset not in self._settled

    def unsettled(self) -> list[int]:
        """Return the offsets that are received and not settled, in order."""
        return [offset for offset in self._from_first() if offset not in self._settled]

    def settled_ahead(self) -> list[tuple[int, int]]:
        """Return inclusive ranges of offsets settled beyond the committable one, merged over offsets that do not exist."""
        ranges: list[tuple[int, int]] = []
        first = last = -1
        for offset in self._from_first() if self._settled else ():
            if offset in self._settled:
                first, last = (offset if first < 0 else first), offset
            elif first >= 0:
                ranges.append((first, last))
                first = -1
        if first >= 0:
            ranges.append((first, last))
        # What was not received yet stays in the map, the rest of a range that was received in part included.
        position = self._position
        return ranges + [(max(first, position), last) for first, last in self._ahead if last >= position]

    def check(self) -> None:
        """Assert the invariants."""
        assert self.committable <= self._position
        assert self.in_flight >= 0
        if not self._runs:
            assert not self._settled
            return
        first_run = self._runs[0]
        assert self._first in first_run
        assert self._stop == first_run.stop
        assert self._first not in self._settled
        if len(self._settled) + len(self._runs) <= invariants.SMALL:
            assert all(offset > self._first and any(offset in run for run in self._runs) for offset in self._settled)
            received = sum(len(run) for run in self._runs) - (self._first - first_run.start)
            assert self.in_flight == received - len(self._settled)

    def _from_first(self) -> Iterator[int]:
        for run in self._runs:
            yield from range(max(run.start, self._first), run.stop)

    def _was_settled(self, offset: int) -> bool:
        ahead = self._ahead
        while ahead and ahead[0][1] < offset:
            ahead.popleft()
        return bool(ahead) and ahead[0][0] <= offset


def _runs(offsets: Sequence[int]) -> Iterator[range]:
    """Split increasing offsets where some do not exist."""
    start = 0
    for index in range(1, len(offsets) + 1):
        if index == len(offsets) or offsets[index] != offsets[index - 1] + 1:
            yield range(offsets[start], offsets[index - 1] + 1)
            start = index
