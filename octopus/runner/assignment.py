"""One assignment of one partition, and what is left of it when it ends."""

import asyncio
from collections.abc import Callable, Sequence

from octopus.claim import Claim
from octopus.events import StoredRecord, TopicPartition
from octopus.runner.lanes import LaneQueue
from octopus.runner.ledger import OffsetLedger, offsets_of
from octopus.types import RunClaim


class Assignment:
    """One assignment of one partition: the only capability through which its records can be settled or committed.

    Closing it replaces ledger and lanes by ones that ignore everything, so a late result has nothing to call, also when
    the same partition has come back as another assignment.

    Attributes:
        partition: Which one.
        committed: The offset last committed, or None.
        mean_bytes: Average size of its records, for back-pressure.
        large: Bytes of each record in flight that is far larger than others, by offset; they are not in that average.
        dead_lettered: Records sent to the dead-letter topic.
        deferred: Records sent to the retry topic.
        retried: Attempts that ended in a retry.
        topic_id: The id of the topic that it reads, None when that is not known.
        is_outdated: That topic is gone, and another one has its name. What was read is still handled; its offsets mean nothing
            any more.
        claims: Records that run back to back now; of those a lane runs by themselves nothing is to be said.
        window: Ends the wait of a batch for company, while one is filling.
    """

    __slots__ = (
        "_committed_ahead",
        "_ledger",
        "_skipped",
        "active",
        "claims",
        "committed",
        "dead_lettered",
        "deferred",
        "is_open",
        "is_outdated",
        "lanes",
        "large",
        "mean_bytes",
        "partition",
        "retried",
        "run",
        "topic_id",
        "window",
    )

    def __init__(self, partition: TopicPartition, run: RunClaim, lanes: LaneQueue, ledger: OffsetLedger) -> None:
        self.partition = partition
        self.run = run
        self.lanes = lanes
        self._ledger = ledger
        self.claims: list[Claim] = []
        self.committed: int | None = None
        self._committed_ahead = 0
        self.mean_bytes = 0.0
        self.large: dict[int, int] = {}
        self._skipped = self.dead_lettered = self.retried = self.deferred = 0
        self.active = False
        self.is_open = True
        self.topic_id: str | None = None
        self.is_outdated = False
        self.window: asyncio.TimerHandle | None = None

    @property
    def ledger(self) -> OffsetLedger:
        """What is settled. Whoever looks sees what running claims have finished up to now."""
        for claim in self.claims:
            self.note(claim, claim.taken - 1)
        return self._ledger

    @property
    def written(self) -> OffsetLedger:
        """What is settled, but for what running claims have finished since somebody looked: enough to weigh partitions."""
        return self._ledger

    def note(self, claim: Claim, finished: int) -> None:
        """Settle the first `finished` records of a claim, as far as they are not settled already."""
        if finished > claim.noted:
            self._ledger.settle_run(offsets_of(claim.records[claim.noted : finished]))
            claim.noted = finished

    def finish(self, claim: Claim) -> None:
        """Settle the records of a claim that came to its end."""
        records = claim.records
        if len(records) > 1:
            if claim in self.claims:  # else the assignment was closed meanwhile
                self.claims.remove(claim)
            self.note(claim, claim.taken)
        else:
            self._ledger.settle(records[0].offset)
        self._skipped += claim.skipped

    @property
    def skipped(self) -> int:
        """Records its filter dropped; of running claims those that `ledger` counts as settled."""
        return self._skipped + sum([claim.skipped for claim in self.claims])

    def leave(self, claim: Claim) -> None:
        """Take a claim for over, but for its last record."""
        self.claims.remove(claim)
        self._skipped += claim.skipped

    def note_skipped(self, count: int) -> None:
        """Count records that the filter dropped."""
        self._skipped += count

    @property
    def has_progress(self) -> bool:
        """Whether a commit would say something new."""
        return self.ledger.committable != self.committed or self.ledger.ahead != self._committed_ahead

    def note_committed(self, offset: int, ahead: int = 0) -> None:
        """Remember what the broker has stored.

        Args:
            offset: The committed offset.
            ahead: How many records beyond it the map in the commit's metadata named.
        """
        self.committed = offset
        self._committed_ahead = ahead

    @property
    def counts(self) -> bool:
        """Whether what settles here may be committed."""
        return self.is_open and not self.is_outdated

    @property
    def done_before(self) -> int:
        """The offset before which nothing is left to do: none, in a topic that took the place of the one that was read."""
        return 0 if self.is_outdated else self.ledger.committable

    @property
    def bytes_in_flight(self) -> int:
        """Key and value bytes of the records received and not settled, approximately."""
        return int(self.ledger.in_flight * self.mean_bytes)

    def weigh(self) -> float:
        """Return the bytes of what is in flight, as far as written; large records are counted one by one."""
        ledger = self._ledger
        for offset in [offset for offset in self.large if not ledger.is_open(offset)]:
            del self.large[offset]
        return ledger.in_flight * self.mean_bytes + sum(self.large.values())

    def close(self) -> None:
        """Revoke the capability: nothing settles through this assignment any more."""
        self.is_open = False
        self._ledger = ClosedLedger(self.ledger)
        self.claims.clear()
        if not isinstance(self.lanes, DrainingLanes):
            self.lanes = DrainingLanes(0)
        if self.window is not None:
            self.window.cancel()


class ClosedLedger(OffsetLedger):
    """Remembers what was settled in time and ignores what comes later."""

    __slots__ = ()

    def __init__(self, ledger: OffsetLedger) -> None:
        super().__init__(ledger.committable)
        self.settled_count = ledger.settled_count

    def settle(self, offset: int) -> None:
        return

    def settle_run(self, offsets: Sequence[int]) -> None:
        return


class DrainingLanes:
    """Hands out nothing more and tells when the last running claim came back."""

    __slots__ = ("_running", "done")

    waiting = 0

    def __init__(self, running: int) -> None:
        self._running = running
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not running:
            self.done.set_result(None)

    def put(self, records: object) -> None:
        return

    def stand_alone(self) -> None:
        return

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        return ()

    def put_back(self, records: object, running: object) -> None:
        return

    def release(self, records: object, unfinished: Sequence[StoredRecord] = ()) -> bool:
        if not unfinished:
            self._running -= 1
            if self._running <= 0:
                resolve(self.done)
        return False


def when_all(done: list[asyncio.Future[None]], then: Callable[[], None]) -> None:
    """Call `then` once all of these are done; at once if they are."""
    while done and done[-1].done():
        done.pop()
    if done:
        done[-1].add_done_callback(lambda _: when_all(done, then))
    else:
        then()


def resolve(future: asyncio.Future[None]) -> None:
    """Wake whoever waits, once."""
    if not future.done():
        future.set_result(None)
