"""Who may run next: lanes by partition, by key, or none. Pure; no locks, no tasks.

`take` hands out a claim of records that may run one after the other, and claims their lanes. A lane stays claimed until
`release`, also while its record waits for a retry: so a retry holds exactly its own lane, the partition, the key, or nothing.
A claim whose record suspends is given up: `put_back` takes what has not begun, and others may run it.

Invariants, between any two steps:

- A record that was put is in one place: in the queue, with the keys' lanes (ready, or behind its key), or taken.
- Of a lane one record runs at a time: what is taken together runs one after the other. They run in offset order, but for those
  that come back to it (`put_first`), because it went on without them.
- `Queue`: no run is empty, `_begun` is inside the first one, and `waiting` counts what was not handed out.
- `BatchLane`: batches that came back (`put_first`) are in `_again`, whole, and run before what waits. While a batch runs, or waits
  for a retry, the lane is busy. A full batch has from 1 to `most` records.
- `KeyLanes`: a key is in `_behind` exactly while a record of it is taken or ready; records of it that wait are behind it, in offset
  order, and never an empty queue.
"""

from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Protocol

from octopus import invariants
from octopus.events import Batch, StoredRecord
from octopus.routing import Ordering
from octopus.unread import Records, Unread

READ_AHEAD = 16
"""Unread records that are read together, though fewer are wanted: one by one they cost several times as much. But when handlers
suspend, every partition holds so many that are read and have not run, and what all of them hold should stay in the cache."""

offset_of = attrgetter("offset")


class LaneQueue(Protocol):
    """The lanes of one partition."""

    def put(self, records: Records) -> None:
        """Queue records behind those already there; a sequence must not be changed any more."""
        ...

    def stand_alone(self) -> None:
        """Let what waits not keep the memory that it came in: it waits for longer than was thought."""
        ...

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        """Claim up to `limit` records that may run one after the other, in offset order; none when their lanes are busy."""
        ...

    def put_back(self, records: Sequence[StoredRecord], running: StoredRecord) -> None:
        """Return the end of a claim, which has not begun, to the front. The lane of `running`, before it, stays claimed."""
        ...

    def put_first(self, record: StoredRecord) -> None:
        """Queue a record, or batch, that gave up its lane before everything that waits in that lane."""
        ...

    def release(self, records: Sequence[StoredRecord], unfinished: Sequence[StoredRecord] = ()) -> bool:
        """Free the lanes of records that were taken, but for those that `unfinished` records of their claim need.

        Returns:
            Whether there may be something to take now.
        """
        ...

    @property
    def waiting(self) -> int:
        """How many records could be taken if no lane were busy."""
        ...


@invariants.hold_after("put", "next", "put_back")
class Queue:
    """Records in order, as they were put: what is taken from a sequence is a slice of it, not one record after the other.

    Unread ones are read when their turn comes. Behind one that cannot be read nothing is handed out any more.
    """

    __slots__ = ("_begun", "_ended", "_runs", "waiting")

    def __init__(self) -> None:
        self._runs: deque[Records] = deque()  # none of them empty
        self._begun = 0  # how many of the first run were handed out
        self._ended = False
        self.waiting = 0

    def put(self, records: Records) -> None:
        """Queue records."""
        if records and not self._ended:
            self._runs.append(records)
            self.waiting += len(records)

    def stand_alone(self) -> None:
        """Let what waits not keep the memory that it came in."""
        for run in self._runs:
            if isinstance(run, Unread):
                run.stand_alone()

    def next(self, limit: int) -> Sequence[StoredRecord]:
        """Hand out up to `limit` records; none at the end."""
        if not self._runs:
            return ()
        run, begun = self._runs[0], self._begun
        if isinstance(run, Unread):
            run = self._read(run, limit)
        end = begun + limit
        if end >= len(run):
            self._runs.popleft()
            self._begun = 0
            taken = run[begun:] if begun else run
        else:
            self._begun = end
            taken = run[begun:end]
        self.waiting -= len(taken)
        return taken

    def _read(self, unread: Unread, limit: int) -> Sequence[StoredRecord]:
        """Put the first unread records, which may be none, into the place of those bytes."""
        records = unread.read(max(limit, READ_AHEAD))
        if unread.error is not None:
            self._ended = True
            self._runs.clear()
            self.waiting = len(records)
        elif not unread:
            self._runs.popleft()
        self._runs.appendleft(records)
        return records

    def put_back(self, records: Sequence[StoredRecord], running: StoredRecord) -> None:
        """Return records to the front."""
        if self._begun:
            self._runs[0] = self._runs[0][self._begun :]  # type: ignore[index]  # begun, so it is read
            self._begun = 0
        if records:
            self._runs.appendleft(records)
            self.waiting += len(records)

    def put_first(self, record: StoredRecord) -> None:
        """Queue a record before the others."""
        self.put_back((record,), record)

    def check(self) -> None:
        """Assert the invariants."""
        runs = self._runs
        assert self._begun < len(runs[0]) if runs else not self._begun
        if len(runs) <= invariants.SMALL:
            assert all(runs)
            assert self.waiting == sum(len(run) for run in runs) - self._begun


class PartitionLane(Queue):
    """The whole partition is one lane: a record starts when its predecessor is settled."""

    __slots__ = ("_busy",)

    def __init__(self) -> None:
        super().__init__()
        self._busy = False

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        """Claim the partition's next records; none while the lane is busy."""
        if self._busy:
            return ()
        taken = self.next(limit)
        self._busy = bool(taken)
        return taken

    def release(self, records: Sequence[StoredRecord], unfinished: Sequence[StoredRecord] = ()) -> bool:
        """Let the next record start, unless the claim goes on."""
        self._busy = bool(unfinished)
        return bool(self._runs) and not unfinished


class NoLanes(Queue):
    """No order: every record may start at once."""

    __slots__ = ()

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        """Claim the next records."""
        return self.next(limit)

    def release(self, records: Sequence[StoredRecord], unfinished: Sequence[StoredRecord] = ()) -> bool:
        """Nothing was claimed."""
        return bool(self._runs)


@invariants.hold_after("put", "take", "put_back", "put_first", "release")
class KeyLanes:
    """One lane per key: records of a key run in order, keys side by side. Records without a key have no order.

    A busy key holds back its own successors only, exactly (no hashing into shared lanes), and an idle key costs nothing.
    """

    __slots__ = ("_behind", "_queue", "_ready")

    def __init__(self) -> None:
        self._queue = Queue()
        self._ready: deque[StoredRecord] = deque()  # their predecessor is done and the key is still claimed for them
        self._behind: dict[bytes, deque[StoredRecord] | None] = {}  # claimed keys and who waits for them

    def put(self, records: Records) -> None:
        """Queue records."""
        self._queue.put(records)

    def stand_alone(self) -> None:
        """Let what waits not keep the memory that it came in."""
        self._queue.stand_alone()

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        """Claim the next records whose keys are free; set aside those whose keys are not.

        Several of one key may be in one claim: there, too, they run one after the other.
        """
        queue, ready, behind = self._queue, self._ready, self._behind
        if not behind and not ready:  # nothing runs or waits: all of them are free
            first = queue.next(limit)
            self._behind = dict.fromkeys({record.key for record in first} - {None})  # type: ignore[arg-type]
            return first
        if limit == 1:
            return self._take_one()
        taken: list[StoredRecord] = []
        while ready and len(taken) < limit:
            record = ready.popleft()
            taken.append(record)
            if (key := record.key) is not None and (successors := behind[key]) is not None:
                while successors and len(taken) < limit:
                    taken.append(successors.popleft())
                behind[key] = successors or None
        taken.sort(key=offset_of)  # keys became free in any order; of one key they are in order already
        claimed: set[bytes] = set()  # by this very call
        while len(taken) < limit and (some := queue.next(limit - len(taken))):
            for record in some:
                key = record.key
                if key is None or key in claimed:
                    taken.append(record)
                elif key not in behind:
                    behind[key] = None
                    claimed.add(key)
                    taken.append(record)
                elif (successors := behind[key]) is None:
                    behind[key] = deque((record,))
                else:
                    successors.append(record)
        return taken

    def _take_one(self) -> Sequence[StoredRecord]:
        """Do the same for handlers that suspend: each runs one record, which should cost no set and no list."""
        if self._ready:
            return (self._ready.popleft(),)
        behind = self._behind
        while some := self._queue.next(1):
            (record,) = some
            key = record.key
            if key is None:
                return some
            if key not in behind:
                behind[key] = None
                return some
            if (successors := behind[key]) is None:
                behind[key] = deque(some)
            else:
                successors.append(record)
        return ()

    def put_back(self, records: Sequence[StoredRecord], running: StoredRecord) -> None:
        """Return records to the front: of each key the first is ready, unless the running record has that key."""
        claimed = {running.key}
        again: dict[bytes, list[StoredRecord]] = {}
        ready = []
        for record in records:
            key = record.key
            if key is None:
                ready.append(record)
            elif key in claimed:
                again.setdefault(key, []).append(record)
            else:
                claimed.add(key)
                ready.append(record)
        self._ready.extendleft(reversed(ready))
        for key, successors in again.items():
            behind = self._behind[key]
            if behind and behind[0].offset < successors[0].offset:  # it came back to its lane while this claim had it
                successors = sorted((*successors, *behind), key=offset_of)
                behind = None
            self._behind[key] = deque((*successors, *(behind or ())))

    def put_first(self, record: StoredRecord) -> None:
        """Let a record be ready where its key is free, else behind the one that has it, in offset order."""
        key, behind = record.key, self._behind
        if key is None or key not in behind:
            if key is not None:
                behind[key] = None
            self._ready.appendleft(record)
        else:
            behind[key] = deque(sorted((record, *(behind[key] or ())), key=offset_of))

    def release(self, records: Sequence[StoredRecord], unfinished: Sequence[StoredRecord] = ()) -> bool:
        """Free the records' keys, or pass each on to the next record of that key."""
        behind = self._behind
        if len(records) == 1 and not unfinished:
            if (key := records[0].key) is not None and (successors := behind.pop(key)):
                self._ready.append(successors.popleft())
                behind[key] = successors or None
            return bool(self._ready or self._queue.waiting)
        keys = {record.key for record in records}
        keys.discard(None)
        if unfinished:
            keys -= {record.key for record in unfinished}
        if len(keys) == len(behind) and not any(behind.values()):  # no other record has a key, and none waits for one
            behind.clear()
        else:
            for key in keys:
                if successors := behind.pop(key):  # type: ignore[arg-type]
                    self._ready.append(successors.popleft())
                    behind[key] = successors or None  # type: ignore[index]
        return bool(self._ready or self._queue.waiting)

    @property
    def waiting(self) -> int:
        """How many records are queued and not known to wait for their key."""
        return self._queue.waiting + len(self._ready)

    def check(self) -> None:
        """Assert the invariants."""
        if len(self._ready) + len(self._behind) > invariants.SMALL:
            return
        assert all(record.key is None or record.key in self._behind for record in self._ready)
        for key, successors in self._behind.items():
            assert successors is None or successors
            offsets = [record.offset for record in successors or ()]
            assert offsets == sorted(offsets)
            assert all(record.key == key for record in successors or ())


BATCH_BYTES = 512 * 1024
"""Bytes of a full batch, about: what a handler is given at once should stay in the cache, and many partitions have one at a time."""


@invariants.hold_after("put", "measure", "take", "put_first", "release")
class BatchLane:
    """The whole partition is one lane and its records are taken by the batch.

    Args:
        most: Records in a full batch, at most.
    """

    __slots__ = ("_again", "_busy", "_flush", "_most", "_queue", "_size")

    def __init__(self, most: int) -> None:
        self._queue = Queue()
        self._again: deque[Batch] = deque()
        self._most = self._size = most
        self._busy = self._flush = False

    def put(self, records: Records) -> None:
        """Queue records."""
        self._queue.put(records)

    def stand_alone(self) -> None:
        """Let what waits not keep the memory that it came in."""
        self._queue.stand_alone()

    def measure(self, mean_bytes: float) -> None:
        """Let full batches of records of this size be no larger than `BATCH_BYTES`."""
        self._size = max(1, min(self._most, int(BATCH_BYTES / max(mean_bytes, 1))))

    def flush(self) -> None:
        """The batching window is over: the next batch need not be full."""
        self._flush = True

    @property
    def is_ready(self) -> bool:
        """Whether a batch can be taken."""
        if self._busy:
            return False
        return bool(self._again) or self._queue.waiting >= self._size or (self._flush and bool(self._queue.waiting))

    @property
    def is_filling(self) -> bool:
        """Whether records wait for company, and have not been told that they waited long enough."""
        return bool(self._queue.waiting) and not self._flush

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        """Claim the next batch, as one record, once it is full or its window is over."""
        if not self.is_ready:
            return ()
        if self._again:
            self._busy = True
            return (self._again.popleft(),)
        batch = Batch()
        while len(batch) < self._size and (some := self._queue.next(self._size - len(batch))):
            batch.extend(some)
        self._busy, self._flush = bool(batch), False
        return (batch,) if batch else ()

    def put_back(self, records: Sequence[StoredRecord], running: StoredRecord) -> None:
        """Do nothing: a batch is a claim by itself."""

    def put_first(self, record: StoredRecord) -> None:
        """Queue a batch before the others, as it is."""
        assert isinstance(record, Batch)
        self._again.append(record)

    def release(self, records: Sequence[StoredRecord], unfinished: Sequence[StoredRecord] = ()) -> bool:
        """Let the next batch start."""
        self._busy = False
        return bool(self.waiting)

    @property
    def waiting(self) -> int:
        """How many records are queued."""
        return self._queue.waiting + sum(map(len, self._again))

    def check(self) -> None:
        """Assert the invariants."""
        assert 1 <= self._size <= self._most
        assert all(self._again)
        assert not (self._busy and self.is_ready)


LANES: Final[dict[Ordering, type[PartitionLane] | type[KeyLanes] | type[NoLanes]]] = {
    "partition": PartitionLane,
    "key": KeyLanes,
    "none": NoLanes,
}
