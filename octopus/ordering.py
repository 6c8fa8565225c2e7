"""Who may run next: lanes by partition, by key, or none. Pure; no locks, no tasks.

`take` hands out a record together with its lane; the lane stays claimed until `release`, also while the record waits
for its retry. So a retry holds exactly its own lane: the partition, the key, or nothing.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol

from octopus.events import Batch, StoredRecord

Ordering = Literal["partition", "key", "none"]


class Lanes(Protocol):
    """The lanes of one partition."""

    def put(self, records: Iterable[StoredRecord]) -> None:
        """Queue records behind those already there."""
        ...

    def take(self) -> StoredRecord | None:
        """Claim the next record whose lane is free, or None."""
        ...

    def release(self, record: StoredRecord) -> bool:
        """Free the lane of a record that was taken; tell whether there may be something to take now."""
        ...

    def next(self, record: StoredRecord) -> StoredRecord | None:
        """Release a record's lane and claim what may run next, in one step."""
        ...

    @property
    def waiting(self) -> int:
        """How many records could be taken if no lane were busy."""
        ...


class PartitionLane:
    """The whole partition is one lane: a record starts when its predecessor is settled."""

    __slots__ = ("_begun", "_busy", "_runs", "waiting")

    def __init__(self) -> None:
        self._runs: deque[Sequence[StoredRecord]] = deque()  # as they were put, none of them empty
        self._begun = 0  # how many of the first run were handed out
        self._busy = False
        self.waiting = 0

    def put(self, records: Iterable[StoredRecord]) -> None:
        """Queue records; a sequence is kept as it is, and must not be changed any more."""
        run = records if isinstance(records, Sequence) else [*records]
        if run:
            self._runs.append(run)
            self.waiting += len(run)

    def take(self) -> StoredRecord | None:
        """Claim the partition's next record."""
        taken = self.take_stretch(1)
        return taken[0] if taken else None

    def take_stretch(self, limit: int) -> Sequence[StoredRecord]:
        """Claim up to `limit` records, to run one after the other; none while the lane is busy."""
        if self._busy or not self._runs:
            return ()
        self._busy = True
        return self._next(limit)

    def _next(self, limit: int) -> Sequence[StoredRecord]:
        run, begun = self._runs[0], self._begun
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

    def put_back(self, records: Sequence[StoredRecord]) -> None:
        """Return what was claimed and has not begun, in order, to the front."""
        if self._begun:
            self._runs[0] = self._runs[0][self._begun :]
            self._begun = 0
        if records:
            self._runs.appendleft(records)
            self.waiting += len(records)

    def release(self, record: StoredRecord) -> bool:
        """Let the next record start."""
        self._busy = False
        return bool(self._runs)

    def next(self, record: StoredRecord) -> StoredRecord | None:
        """Claim the partition's next record; the lane goes from one to the other."""
        if self._runs:
            return self._next(1)[0]
        self._busy = False
        return None


class KeyLanes:
    """One lane per key: records of a key run in order, keys side by side. Records without a key have no order.

    A busy key holds back its own successors only, exactly (no hashing into shared lanes), and an idle key costs nothing.
    """

    __slots__ = ("_behind", "_queue", "_ready")

    def __init__(self) -> None:
        self._queue: deque[StoredRecord] = deque()
        self._ready: deque[StoredRecord] = deque()  # their predecessor is done and the key is still claimed for them
        self._behind: dict[bytes, deque[StoredRecord] | None] = {}  # claimed keys and who waits for them

    def put(self, records: Iterable[StoredRecord]) -> None:
        """Queue records."""
        self._queue.extend(records)

    def take(self) -> StoredRecord | None:
        """Claim the next record whose key is free; set aside those whose key is not."""
        if self._ready:
            return self._ready.popleft()
        queue, behind = self._queue, self._behind
        while queue:
            record = queue.popleft()
            key = record.key
            if key is None:
                return record
            if key not in behind:
                behind[key] = None
                return record
            successors = behind[key]
            if successors is None:
                behind[key] = deque((record,))
            else:
                successors.append(record)
        return None

    def release(self, record: StoredRecord) -> bool:
        """Free the record's key, or pass it on to the next record of that key."""
        key = record.key
        if key is not None:
            successors = self._behind.pop(key)
            if successors:
                self._ready.append(successors.popleft())
                self._behind[key] = successors or None
                return True
        return bool(self._queue)

    def next(self, record: StoredRecord) -> StoredRecord | None:
        """Pass the key on, and claim the next record whose key is free."""
        key = record.key
        if key is not None:
            successors = self._behind.pop(key)
            if successors:
                successor = successors.popleft()
                self._behind[key] = successors or None
                return successor
        return self.take()

    @property
    def waiting(self) -> int:
        """How many records are queued and not known to wait for their key."""
        return len(self._queue) + len(self._ready)


class NoLanes:
    """No order: every record may start at once."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: deque[StoredRecord] = deque()

    def put(self, records: Iterable[StoredRecord]) -> None:
        """Queue records."""
        self._queue.extend(records)

    def take(self) -> StoredRecord | None:
        """Claim the next record."""
        return self._queue.popleft() if self._queue else None

    def release(self, record: StoredRecord) -> bool:
        """Nothing was claimed."""
        return bool(self._queue)

    def next(self, record: StoredRecord) -> StoredRecord | None:
        """Claim the next record."""
        return self._queue.popleft() if self._queue else None

    @property
    def waiting(self) -> int:
        """How many records are queued."""
        return len(self._queue)


class BatchLane:
    """The whole partition is one lane and its records are taken by the batch.

    Args:
        size: Records in a full batch.
    """

    __slots__ = ("_busy", "_flush", "_queue", "_size")

    def __init__(self, size: int) -> None:
        self._queue: deque[StoredRecord] = deque()
        self._size = size
        self._busy = self._flush = False

    def put(self, records: Iterable[StoredRecord]) -> None:
        """Queue records."""
        self._queue.extend(records)

    def flush(self) -> None:
        """The batching window is over: the next batch need not be full."""
        self._flush = True

    @property
    def is_ready(self) -> bool:
        """Whether a batch can be taken."""
        return not self._busy and (len(self._queue) >= self._size or (self._flush and bool(self._queue)))

    @property
    def is_filling(self) -> bool:
        """Whether records wait for company, and nobody has said yet that they waited long enough."""
        return bool(self._queue) and not self._flush

    def take(self) -> Batch | None:
        """Claim the next batch once it is full or its window is over."""
        if not self.is_ready:
            return None
        self._busy, self._flush = True, False
        queue = self._queue
        return Batch(queue.popleft() for _ in range(min(self._size, len(queue))))

    def release(self, record: StoredRecord) -> bool:
        """Let the next batch start."""
        self._busy = False
        return bool(self._queue)

    def next(self, record: StoredRecord) -> Batch | None:
        """Claim the next batch if it is ready."""
        self._busy = False
        return self.take()

    @property
    def waiting(self) -> int:
        """How many records are queued."""
        return len(self._queue)


LANES: Final[dict[Ordering, type[PartitionLane] | type[KeyLanes] | type[NoLanes]]] = {
    "partition": PartitionLane,
    "key": KeyLanes,
    "none": NoLanes,
}
