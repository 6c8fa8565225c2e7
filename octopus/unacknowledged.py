"""Records that are finished, and whose outputs no broker has acknowledged: they settle only then. Pure.

What the handlers of a group publish goes out in publications, which are numbered. A finished record waits for the newest publication that
its assignment has put anything into up to then, and for all before it. So a record costs nothing of its own: a run of records that
finished together waits as one, behind one number.

    a handler returns ──▶ `newest` ── its lane is free, its run waits ── `acknowledged` reaches that number ──▶ settled
                                                                     └─ an output of it was refused ──▶ its road of failure

Invariants, between any two steps:

- `acknowledged < collecting`, and neither goes back. Every publication up to `acknowledged` is acknowledged, but for outputs that
  were refused: of those each has its refusal.
- Numbers of what waits increase, and an assignment is in `waiting` exactly while something of it waits.
- A refused record is not settled before its refusal is concluded. Of a closed assignment nothing waits.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from octopus.events import Batch, StoredRecord


class Publications:
    """The publications of one group.

    Attributes:
        acknowledged: All up to this one are.
        collecting: The one that takes outputs now.
        waiting: Assignments of which something waits, in the order in which they began to.
    """

    __slots__ = ("acknowledged", "collecting", "waiting")

    def __init__(self) -> None:
        self.acknowledged = 0
        self.collecting = 1
        self.waiting: dict[Unacknowledged, None] = {}

    def acknowledge(self, number: int) -> None:
        """Take it that every publication up to a number is acknowledged, and let what waited for that settle."""
        assert self.acknowledged <= number < self.collecting
        self.acknowledged = number
        for assignment in [*self.waiting]:
            assignment.advance()


class Refusal(NamedTuple):
    """An output that a broker has refused for good.

    Attributes:
        handler: Whose it is: what identifies it in its assignment.
        stored: The record, or batch, that it was published for, as its handler had it.
        conclude: Takes it the road of failure and returns what it came to; total, as `types.Conclude`.
    """

    handler: object
    stored: StoredRecord
    conclude: Callable[[], Awaitable[Any]]


class Unacknowledged:
    """What one assignment of a partition has published and is not acknowledged, and the records that wait for that.

    Args:
        publications: Of its group.

    Attributes:
        publications: As given.
        newest: The newest publication that something of it went into; 0 at first.
        refused: What brokers refused, by the offset at which its record settles, until that record is finished.
        concluding: How many refused records are on their road of failure.
        is_open: Whether anything may settle yet.
        advance: Called when something that waits may be due.
        finished: How many records wait that are not on a road of failure.
    """

    __slots__ = ("_waiting", "advance", "concluding", "finished", "is_open", "newest", "publications", "refused")

    def __init__(self, publications: Publications | None = None) -> None:
        self.publications = publications or Publications()
        self.newest = 0
        self.refused: dict[int, list[Refusal]] = {}
        self.concluding = self.finished = 0
        self.is_open = True
        self.advance: Callable[[], object] = _do_nothing
        self._waiting: deque[Finished] = deque()

    def __bool__(self) -> bool:
        """Whether a record waits that is finished."""
        return bool(self._waiting or self.concluding)

    def __iter__(self) -> Iterator[StoredRecord]:
        """Go over the records that wait."""
        for finished in self._waiting:
            yield from finished.records

    def wait(self, records: Sequence[StoredRecord], attempt: int) -> None:
        """Let finished records wait for everything that was published up to now.

        Args:
            records: In offset order.
            attempt: Which attempt of theirs finished.
        """
        if self.is_open and records:
            self._waiting.append(Finished(self.newest, records, attempt))
            self.finished += len(records)
            self.publications.waiting[self] = None
            if self.newest <= self.publications.acknowledged:  # a refusal came before the record was finished
                self.advance()

    def take(self) -> Iterator["Finished"]:
        """Give the runs of records whose time has come, each once."""
        waiting, acknowledged = self._waiting, self.publications.acknowledged
        while waiting and waiting[0].number <= acknowledged:
            self.finished -= len(waiting[0].records)
            yield waiting.popleft()
        if not waiting:
            self.publications.waiting.pop(self, None)

    def refuse(self, refusal: Refusal, offsets: Sequence[int]) -> None:
        """Note a refusal for the records that settle at these offsets, which share it; the first one of each handler counts.

        What a run has published may lie in several publications, and some of it be refused in each: it has failed once.
        """
        if not self.is_open:
            return
        shared = [refusal]
        for offset in offsets:
            known = self.refused.setdefault(offset, shared)
            if known is not shared and all(each.handler is not refusal.handler for each in known):
                known.append(refusal)

    def take_refused(self, finished: "Finished") -> tuple[list[StoredRecord], list["Refused"]]:
        """Tell finished records that may settle from those whose outputs were refused."""
        settled: list[StoredRecord] = []
        refused: dict[int, Refused] = {}
        for record in finished.records:
            refusals = self.refused.pop(record.offset, None)
            if refusals is None:
                settled.append(record)
            elif id(refusals) in refused:
                refused[id(refusals)].records.append(record)
            else:
                refused[id(refusals)] = Refused([record], refusals, finished.attempt)
        return settled, [*refused.values()]

    def forget(self, offsets: Iterable[int]) -> None:
        """Drop what was refused of records that have settled."""
        for offset in offsets:
            del self.refused[offset]

    def close(self) -> None:
        """Let nothing settle any more."""
        self.is_open = False
        self.advance = _do_nothing
        self._waiting.clear()
        self.finished = 0
        self.refused.clear()
        self.publications.waiting.pop(self, None)

    def check(self) -> None:
        """Assert the invariants."""
        numbers = [finished.number for finished in self._waiting]
        assert numbers == sorted(numbers)
        assert self.finished == sum(len(finished.records) for finished in self._waiting)
        assert bool(numbers) == (self in self.publications.waiting)
        assert self.publications.acknowledged < self.publications.collecting
        assert self.is_open or not (numbers or self.refused)


class Finished(NamedTuple):
    """Records that finished together, and the publication that they wait for."""

    number: int
    records: Sequence[StoredRecord]
    attempt: int


class Refused(NamedTuple):
    """Finished records whose outputs were refused.

    Attributes:
        records: One, or those of a batch.
        refusals: One of each handler.
        attempt: Which attempt was the last.
    """

    records: list[StoredRecord]
    refusals: Sequence[Refusal]
    attempt: int

    @property
    def stored(self) -> StoredRecord:
        """What runs again, if it does."""
        return Batch(self.records) if isinstance(self.refusals[0].stored, Batch) else self.records[0]


def _do_nothing() -> None:
    """Let nothing settle."""
