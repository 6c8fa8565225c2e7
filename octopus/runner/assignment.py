"""One assignment of one partition, and what is left of it when it ends.

Invariants, between any two steps:

- While it is open, its ledger is the one that it began with. Once it is closed, ledger and lanes ignore everything, and for good.
- A claim is in `claims` exactly while a slot runs it, it began with several records, and it was not split: from one record
  nothing can be settled before it ends.
- A record of it is in one place only: it waits in the lanes, runs in a slot, waits for its next attempt, is finished and waits for
  acknowledgements, is refused and concluded, or is settled.
- A record of `again` waits in the lanes, before the others of its lane, and is not settled.
"""

from collections.abc import Sequence
from itertools import islice

from octopus import invariants
from octopus.claim import Claim
from octopus.events import Batch, StoredRecord, TopicPartition
from octopus.outcomes import DeadLetter, Deferred, Outcome, Retry, Skipped
from octopus.runner.draining import DrainingLanes
from octopus.runner.lanes import LaneQueue
from octopus.runner.ledger import OffsetLedger, offsets_of
from octopus.types import BatchOutcome, RunClaim
from octopus.unacknowledged import Refused, Unacknowledged


@invariants.hold_after("note", "finish", "reduce", "settle", "settle_batch", "acknowledge", "note_committed", "close")
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
        claims: Of several records, those that slots run now. Of one record nothing is to be said before it ends.
        unacknowledged: What of it is finished, and published something that is not acknowledged.
        again: Attempts of records that wait in the lanes for another one, by offset: their outputs were refused.
    """

    __slots__ = (
        "_committed_ahead",
        "_ledger",
        "_skipped",
        "active",
        "again",
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
        "unacknowledged",
    )

    def __init__(
        self,
        partition: TopicPartition,
        run: RunClaim,
        lanes: LaneQueue,
        ledger: OffsetLedger,
        unacknowledged: Unacknowledged,
    ) -> None:
        self.partition = partition
        self.run = run
        self.lanes = lanes
        self._ledger = ledger
        self.unacknowledged = unacknowledged
        self.again: dict[int, int] = {}
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

    @property
    def ledger(self) -> OffsetLedger:
        """What is settled, with the records that running claims have finished up to now."""
        for claim in self.claims:
            self.note(claim, claim.taken - 1)
        return self._ledger

    @property
    def written(self) -> OffsetLedger:
        """What is settled, without the records that running claims have finished since the last look: enough to weigh partitions."""
        return self._ledger

    def note(self, claim: Claim, finished: int) -> None:
        """Let the first `finished` records of a claim settle, as far as that was not done already."""
        if finished > claim.noted:
            self._finish(claim.records[claim.noted : finished], 1)  # those of several are at their first
            claim.noted = finished

    def finish(self, claim: Claim) -> None:
        """Let the records of a claim settle that came to its end."""
        records = claim.records
        if len(records) > 1:
            if claim in self.claims:  # else the assignment was closed meanwhile
                self.claims.remove(claim)
            self.note(claim, claim.taken)
        else:
            self._finish(records, claim.attempt)
        self._skipped += claim.skipped

    def _finish(self, records: Sequence[StoredRecord], attempt: int) -> None:
        """Settle records, as soon as everything is acknowledged that was published until now."""
        published = self.unacknowledged
        if published.newest > published.publications.acknowledged or published.refused:
            published.wait(records, attempt)
        elif len(records) == 1:
            self._ledger.settle(records[0].offset)
        else:
            self._ledger.settle_run(offsets_of(records))

    def acknowledge(self) -> list[Refused]:
        """Settle what has waited long enough; return those records whose outputs were refused."""
        published, refused = self.unacknowledged, []
        for finished in published.take():
            settled = finished.records
            if published.refused:
                settled, some = published.take_refused(finished)
                refused += some
            self._ledger.settle_run(offsets_of(settled))
        if published.refused:  # a task that outlived its handler has published, too late to be its record's failure
            published.forget([offset for offset in published.refused if not self._ledger.is_open(offset)])
        return refused

    def settle(self, record: StoredRecord, outcome: Outcome, attempt: int) -> None:
        """Let one record settle whose outcome is final, and count it."""
        match outcome:
            case Deferred():
                self.deferred += 1
                self.retried += outcome.retry.begun
            case DeadLetter():
                self.dead_lettered += 1
            case Skipped():
                self._skipped += 1
        self._finish((record,), attempt)

    def settle_batch(self, outcome: BatchOutcome, attempt: int) -> Batch:
        """Let the records of a batch settle whose outcomes are final, and count them; return those that are to run again."""
        batch, others = outcome.batch, outcome.others
        again = Batch()
        if others:
            again.extend(single for single, result in outcome.outcomes() if isinstance(result, Retry))
            self._skipped += sum(isinstance(result, Skipped) for result in others.values())
            self.dead_lettered += sum(isinstance(result, DeadLetter) for result in others.values())
        if again:
            batch = [single for single, result in outcome.outcomes() if not isinstance(result, Retry)]
        self._finish(batch, attempt)
        return again

    def reduce(self, claim: Claim) -> bool:
        """Let settle what a claim has finished and give back what has not begun: it has nothing but its running record then.

        Returns:
            Whether there may be something to take now.
        """
        left = claim.end()
        finished, running = claim.records[:-1], claim.records[-1]
        self.note(claim, len(finished))
        self.claims.remove(claim)
        self._skipped += claim.skipped
        claim.keep_last()
        self.lanes.put_back(left, running)
        return self.lanes.release(finished, (running, *left))

    @property
    def skipped(self) -> int:
        """Records its filter dropped; of running claims those that `ledger` counts as settled."""
        return self._skipped + sum([claim.skipped for claim in self.claims])

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
        self._ledger = ClosedLedger(self.ledger)
        self.is_open = False
        self.unacknowledged.close()
        self.claims.clear()
        if not isinstance(self.lanes, DrainingLanes):
            self.lanes = DrainingLanes(0)

    def check(self) -> None:
        """Assert the invariants, as far as they can be seen from here."""
        assert self.is_open != isinstance(self._ledger, ClosedLedger)
        assert self.is_open or (isinstance(self.lanes, DrainingLanes) and not self.claims)
        self.unacknowledged.check()
        for claim in self.claims:
            assert claim.noted <= claim.taken <= len(claim.records)
        waiting = [*islice(self.unacknowledged, invariants.SMALL)] if self.is_open else ()
        assert all(self._ledger.is_open(record.offset) for record in waiting)
        assert not self.is_open or all(map(self._ledger.is_open, self.again))


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
