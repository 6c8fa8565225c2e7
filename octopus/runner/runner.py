"""Runs records through an application: ordered, concurrent, each settled exactly once.

A few persistent slots take records from the lanes of the open assignments. A handler that never suspends is run
by one of them back to back, without the event loop; each real suspension lets the next slot start. There is no
task, timer or lock per record.

A driver (worker, Lambda trigger, test client) opens an `Assignment` for each partition it is given, submits what it
fetched, and reads the ledger to know what may be committed. Between the two a record takes this way:

    submit ──▶ lanes ──▶ a slot claims it (`_work`) ──▶ `Assignment.run` ──▶ its outcome

- A final outcome releases its lane (`_release`), and the record settles in the ledger (`Assignment.finish`, `_conclude`).
- While outputs of its assignment are on their way, the record waits and settles when they are acknowledged (`_acknowledge`). Where one of
  its own is refused, it comes to another outcome (`_conclude_late`): it settles then, or comes back to its lane before the others.
- A retry keeps its lane until it runs again (`_delay`).

It is put together from machines, each with its invariants at its top. Pure ones decide: lanes (who may run next), the ledger (what may
be committed), pacing (when the loop has its turn). The schedule keeps what waits, slots the tasks. These are the runner's own
invariants, between any two steps, until processing has stopped or the runner is closed:

- The assignment of a slot is the one whose claim it runs; it has none while it looks for a claim, rests, or lets the loop have its turn.
- An assignment that a slot runs is in the schedule exactly when its `active` is set.
- A claim is in the `claims` of an assignment only while the slot that runs it has that assignment.
- A record is settled once, after its outcome is final: by the slot that ran it or, where outputs of its assignment were on their way
  then, when these are acknowledged or its refusal is concluded. A claim is finished up to the record that runs.
- What an assignment has not begun is nowhere once it is drained or closed: its lanes hand out nothing more, and the schedule has
  forgotten it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import partial

from octopus import cancellation, invariants
from octopus.claim import Claim
from octopus.errors import HandlerStopped
from octopus.events import Batch, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, Outcome, Retry
from octopus.routing import Ordering
from octopus.runner.assignment import Assignment
from octopus.runner.draining import DrainingLanes, when_all
from octopus.runner.lanes import LANES, BatchLane
from octopus.runner.ledger import OffsetLedger, offsets_of
from octopus.runner.pacing import LAST_LOOK, Pacing
from octopus.runner.refusals import Refusals, verdict
from octopus.runner.schedule import Schedule
from octopus.runner.slot import CANCELLED, Slot
from octopus.runner.slots import Slots
from octopus.types import BatchOutcome, Bindable
from octopus.unacknowledged import Publications, Refused, Unacknowledged
from octopus.unread import Records, Unread

Unfinished = dict[Assignment, list[tuple[StoredRecord, int]]]
"""Records that are not settled, with their attempts."""

CLOSE_TIMEOUT = 5.0
"""Seconds that cancelled handlers have for their clean-up."""


@invariants.hold_after(
    "open",
    "submit",
    "flush_batch",
    "withdraw",
    "revoke",
    "_split",
    "_conclude",
    "_acknowledge",
    "_conclude_late",
    "_slot_ended",
)
class Runner:
    """Runs the records of one consumer group.

    Args:
        application: What to run them through.
        ordering: Which records may overtake each other.
        concurrency: How many handlers may be suspended at once.
        batch: Records handed over at once, for applications that take `Batch`es.
        within: Longest wait for a batch to fill, seconds.
        reschedule: Whether a retry runs here. A driver whose records come again by themselves (Lambda) says no: the
            record stays unsettled and its lane claimed.
        publications: Of the application's outputs, where a record settles when they are acknowledged.

    Attributes:
        stopped: Done, with the reason, once processing has stopped; nothing is started after that.
    """

    def __init__(
        self,
        application: Bindable,
        *,
        ordering: Ordering = "partition",
        concurrency: int = 1,
        batch: int | None = None,
        within: float = 0.0,
        reschedule: bool = True,
        publications: Publications | None = None,
    ) -> None:
        self._application = application
        self._publications = publications or Publications()
        self._refusals = Refusals(self._conclude_late, self._fail)
        self._lanes = partial(BatchLane, batch) if batch else LANES[ordering]
        self._exclusive = 1 if ordering == "partition" else 0
        self._takes_batches = batch is not None
        self._reschedule = reschedule
        self._loop = asyncio.get_running_loop()
        self.stopped: asyncio.Future[HandlerStopped] = self._loop.create_future()

        self._pacing = Pacing()
        self._slots = Slots(
            concurrency,
            work=self._work,
            has_work=lambda: self._schedule.has_work(),
            is_filling=lambda: self._schedule.is_filling(),
            split=self._split,
            ended=self._slot_ended,
        )
        self._schedule = Schedule(self._slots, self._pacing, in_turn=bool(self._exclusive), within=within)
        self._closing = False

    # ── what a driver does ────────────────────────────────────────────────────────────────────────────────────────

    def open(
        self, partition: TopicPartition, position: int, settled_ahead: Sequence[tuple[int, int]] = ()
    ) -> Assignment:
        """Begin an assignment of a partition.

        Args:
            partition: Which one.
            position: The offset of the next record that will be submitted, or a lower one.
            settled_ahead: Inclusive offset ranges that an earlier owner settled; they are not run again.
        """
        ledger, published = OffsetLedger(position, settled_ahead), Unacknowledged(self._publications)
        run = self._application.bind(partition, published)
        assignment = Assignment(partition, run, self._lanes(), ledger, published)
        published.advance = partial(self._acknowledge, assignment)
        self._schedule.hold(assignment)  # no record runs twice at once here
        when_all([lanes.done for lanes in self._leaving(partition)], partial(self._schedule.let_go, assignment))
        return assignment

    def submit(self, assignment: Assignment, records: Records, position: int, size_bytes: int) -> None:
        """Take over consecutive records of an assignment.

        Args:
            assignment: Whose records they are.
            records: In offset order.
            position: Where the next fetch starts.
            size_bytes: Their size; counts for back-pressure.
        """
        if self.stopped.done() or not assignment.is_open:
            return
        before = assignment.bytes_in_flight
        known = assignment.ledger.receive(offsets_of(records), position)
        if not records:
            return
        # Over all that is in flight: small records must not make large ones before them look small.
        assignment.mean_bytes = (before + size_bytes) / (assignment.ledger.in_flight + len(known))
        if isinstance(assignment.lanes, BatchLane):
            assignment.lanes.measure(assignment.weigh() / max(assignment.ledger.in_flight, 1))
        if known:
            read = records.read(len(records)) if isinstance(records, Unread) else records
            assignment.lanes.put([record for record in read if record.offset not in known])
        if not known or isinstance(records, Unread):  # if anything is left of it, it cannot be read
            assignment.lanes.put(records)
        self._schedule.activate(assignment)

    def flush_batch(self, assignment: Assignment) -> None:
        """Run the batch that waits for company as it is: for now none is coming."""
        self._schedule.flush_batch(assignment)

    def hasten(self, assignments: Collection[Assignment]) -> None:
        """Run the retries of these assignments that wait for their time now."""
        self._schedule.hasten(assignments)

    def withdraw(self, assignments: Collection[Assignment]) -> tuple[Unfinished, Unfinished]:
        """Begin nothing more of these assignments; return what waits, and what runs and may still finish, with the attempts.

        Only with `ordering="none"`: in any other order, lanes do not hand out a record while the one before it runs.
        """
        assert self._lanes is LANES["none"], "ordered lanes do not hand out everything that waits"
        waiting: Unfinished = defaultdict(list)
        running: Unfinished = defaultdict(list)
        for slot in self._slots:
            if (assignment := slot.assignment) is not None and assignment in assignments and slot.claim.records:
                self._split(slot)
                current = slot.claim.current
                running[assignment].append((current, slot.claim.attempt_of(current)))
        for assignment, record, attempt in self._schedule.retries_of(assignments):
            waiting[assignment].append((record, attempt))
        for assignment in assignments:
            while records := assignment.lanes.take(LAST_LOOK):
                waiting[assignment] += [(record, assignment.again.get(record.offset, 1)) for record in records]
            running[assignment] += [(record, 1) for record in assignment.unacknowledged]
            running[assignment] += [(record, 1) for record in self._refusals.of(assignment)]
        self._forget(assignments)
        return waiting, running

    async def drain(self, assignments: Collection[Assignment], timeout: float) -> bool:
        """Start nothing more of these assignments and wait for what is running, and for what it has published.

        Returns:
            Whether all of it finished within `timeout` seconds. The caller commits, then revokes the assignments.
        """
        assignments = [assignment for assignment in assignments if assignment.is_open]
        self._forget(assignments)
        running = [assignment.lanes.done for assignment in assignments if isinstance(assignment.lanes, DrainingLanes)]
        try:
            async with asyncio.timeout(timeout):
                if running:
                    await asyncio.wait(running)
                while any(assignment.is_open and assignment.unacknowledged for assignment in assignments):
                    self._refusals.moved.clear()
                    await self._refusals.moved.wait()
        except TimeoutError:
            return False
        return True

    def revoke(self, assignments: Collection[Assignment]) -> None:
        """Close assignments, forget what waits and cancel what still runs: its records belong to another member now."""
        self._forget(assignments)
        for assignment in assignments:
            assignment.close()
        for slot in self._slots:
            if slot.assignment in assignments:
                self._slots.end(slot)
        self._refusals.moved.set()  # a drain does not wait for these any more

    async def quiet(self) -> None:
        """Wait until nothing runs, nothing could and all outputs are acknowledged (retries that wait for their time do not count)."""
        while not self._is_quiet():
            await self._slots.quiet.wait()
            if self._publications.waiting or self._refusals:
                self._refusals.moved.clear()
                await self._refusals.moved.wait()

    def _is_quiet(self) -> bool:
        if not self._slots.quiet.is_set():  # before our turn comes, a retry may have fallen due
            return False
        return self.stopped.done() or not (self._publications.waiting or self._refusals)

    @property
    def supply(self) -> int:
        """How many records wait for nothing but a free slot."""
        return self._schedule.supply

    @property
    def busy_for(self) -> float:
        """For how long, in seconds, what waits for a slot keeps the slots busy; 0 where that cannot be told: handlers suspend."""
        return 0.0 if self.suspends or self._takes_batches else self.supply * self._pacing.seconds

    @property
    def suspends(self) -> bool:
        """Whether the last handler, or its predecessor in its claim, waited for something."""
        return self._pacing.claim_limit == 1

    async def wait_for_demand(self, timeout: float) -> bool:
        """Wait until some partition has nothing left to take, or has settled something late; return False after `timeout` seconds."""
        return await self._schedule.wait_for_demand(timeout)

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Cancel what is still running; nothing of it is settled, also if a handler makes an ordinary end of it.

        Returns:
            Whether all of it ended within `timeout` seconds.
        """
        self._closing = True
        self._clear()
        for slot in self._slots:
            self._slots.end(slot)
        running = [*self._slots.tasks.values(), *self._refusals.close()]
        return not running or not (await asyncio.wait(running, timeout=timeout))[1]

    @property
    def running(self) -> list[tuple[Assignment, StoredRecord, int]]:
        """The records whose handlers are running, with a number that changes from record to record."""
        return self._slots.running

    @property
    def delayed(self) -> int:
        """How many records wait for their next attempt."""
        return self._schedule.delayed

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, in loop time."""
        return self._schedule.next_due

    # ── the hot path ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _work(self, slot: Slot) -> None:
        schedule, slots, pacing, claim, stride = self._schedule, self._slots, self._pacing, slot.claim, 1
        active = schedule.active
        task = slots.tasks[slot]
        cancellation.judge_by(slot)
        until_look, looked = stride, self._await_turn()
        records: Sequence[StoredRecord]
        outcome: Outcome | BatchOutcome
        while True:
            claimed = schedule.claim(until_look)
            if claimed is None:
                slot.assignment = None
                claim.begin((), 1)  # a slot that rests keeps neither what it ran nor how that ended
                records, outcome = (), DONE
                await slots.rest()
                until_look, looked = stride, self._await_turn()
                continue
            assignment, records, attempt = claimed
            slot.assignment = assignment
            slot.serial += 1
            claim.begin(records, attempt)
            slot.is_alone = len(records) == 1
            if several := not slot.is_alone:
                assignment.claims.append(claim)
                if not self._exclusive:
                    slots.splittable.append(slot)
            if not slots.is_starting and (len(active) > self._exclusive or (several and not self._exclusive)):
                slots.start_next_soon()
            number = pacing.begin_claim()

            outcome = await assignment.run(claim)

            if (is_cancelled := task.cancelling() or slot.is_told) and slot.is_to_end():
                raise asyncio.CancelledError  # swallowed by its handler, whose end was not an end of its work
            until_look -= len(records)
            if outcome is DONE or outcome is SKIPPED:
                assignment.finish(claim)
                self._release(assignment, claim.records)
                pacing.end_claim(number)
            else:
                self._conclude(assignment, claim, outcome)
                if isinstance(outcome, BatchOutcome):
                    pacing.end_claim(number)  # all of it ran, also where something of it comes again
            if is_cancelled:
                slot.assignment = None
                await cancellation.take_back(task)  # or the next record would pay for it
            if until_look <= 0:
                slot.assignment = None
                stride, looked = await self._look(stride, looked)
                until_look = stride

    async def _look(self, stride: int, looked: float) -> tuple[int, float]:
        """Look at the clock and let the loop have its turn when that is due; return after how many records to look again."""
        stride, is_late = self._pacing.look(self._loop.time(), stride, looked)
        if is_late:
            self._schedule.active.rotate(-1)  # one busy partition does not keep the others waiting
            if self._pacing.awaited_since is not None:
                await asyncio.sleep(0)
        return stride, self._await_turn()

    def _await_turn(self) -> float:
        """Note from now on whether the loop has had a turn; return the time."""
        now = self._loop.time()
        if self._pacing.await_turn(now):
            self._loop.call_soon(self._pacing.have_turn)
        return now

    def _split(self, slot: Slot) -> None:
        """Let others run what is left of a claim whose record suspended, and what waits for those that are finished."""
        assignment, claim = slot.assignment, slot.claim
        if assignment is not None and claim in assignment.claims and claim.taken:
            self._pacing.limit_to_one()
            if assignment.reduce(claim):
                self._schedule.activate(assignment)

    def _release(self, assignment: Assignment, records: Sequence[StoredRecord]) -> None:
        if assignment.lanes.release(records) and not assignment.active:
            self._schedule.activate(assignment)

    # ── everything that is not the hot path ───────────────────────────────────────────────────────────────────────

    def _conclude(self, assignment: Assignment, claim: Claim, outcome: Outcome | BatchOutcome) -> None:
        """Act on the outcome of the record at which a claim ended; what has not begun waits again."""
        if claim in assignment.claims and assignment.reduce(claim):
            self._schedule.activate(assignment)
        record, attempt = claim.current, claim.attempt_of(claim.current)
        assignment.note_skipped(claim.skipped)
        match outcome:
            case Retry():
                self._delay(assignment, record, attempt, outcome)
                return
            case BatchOutcome():
                again = assignment.settle_batch(outcome, attempt)
                if again and outcome.retry is not None:
                    self._delay(assignment, again, attempt, outcome.retry)
                    return
            case _:
                assignment.settle(record, outcome, attempt)
        self._release(assignment, (record,))

    def _delay(self, assignment: Assignment, record: StoredRecord, attempt: int, retry: Retry) -> None:
        assignment.retried += retry.begun
        if isinstance(assignment.lanes, DrainingLanes):
            assignment.lanes.release((record,))
            return
        if not self._reschedule or self._closing or self.stopped.done():
            return  # The lane stays claimed: what comes behind this record in its lane must not run before it.
        self._schedule.delay(retry.after, assignment, record, attempt + retry.counted)

    # ── outputs in flight ─────────────────────────────────────────────────────────────────────────────────────────────

    def _acknowledge(self, assignment: Assignment) -> None:
        """Settle what has waited long enough for acknowledgements; what was refused takes its road of failure."""
        self._refusals.add(assignment, assignment.acknowledge())
        self._schedule.note_room()

    def _conclude_late(
        self, assignment: Assignment, refused: Refused, outcomes: Sequence[Outcome | BatchOutcome]
    ) -> None:
        """Act on what handlers of records came to whose lanes have gone on."""
        for outcome in outcomes:
            if isinstance(outcome, BatchOutcome):
                again = assignment.settle_batch(outcome, refused.attempt)
                if again and outcome.retry is not None:
                    parts = [Batch([single]) for single in again] if outcome.apart else [again]
                    for part in parts:
                        self._delay_late(assignment, part, refused.attempt, outcome.retry)
        match verdict([each for each in outcomes if not isinstance(each, BatchOutcome)]):
            case None:
                pass
            case Retry() as retry:
                self._delay_late(assignment, refused.stored, refused.attempt, retry)
            case final:
                assignment.settle(refused.stored, final, refused.attempt)

    def _delay_late(self, assignment: Assignment, record: StoredRecord, attempt: int, retry: Retry) -> None:
        assignment.retried += retry.begun
        is_leaving = isinstance(assignment.lanes, DrainingLanes) or self._closing or self.stopped.done()
        if self._reschedule and not is_leaving:
            self._schedule.delay_without_lane(retry.after, assignment, record, attempt + retry.counted)

    # ── the end of slots, assignments and the runner ──────────────────────────────────────────────────────────────────

    def _slot_ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        assignment = slot.assignment
        leaving = assignment is not None and isinstance(assignment.lanes, DrainingLanes)
        if assignment is not None and slot.claim.records and (leaving or task.cancelled()):
            # An assignment that leaves no longer waits for it. Otherwise the cancellation was not ours, so it runs again.
            if not (leaving or self._closing):
                slot.say_cancelled()
            self._conclude(assignment, slot.claim, CANCELLED)
        if not task.cancelled():
            error = task.exception()
            assert error is not None, "a slot works until it is cancelled"
            self._fail(error)
        elif self._schedule.has_work():
            self._slots.start_next_soon()

    def _fail(self, error: BaseException) -> None:
        """Stop processing at what is no event's failure."""
        self._stop(error if isinstance(error, HandlerStopped) else HandlerStopped.by(error))

    def _stop(self, reason: HandlerStopped) -> None:
        self._clear()
        if not self.stopped.done():
            self.stopped.set_result(reason)
        self._schedule.stop()
        self._slots.stop()
        self._refusals.moved.set()

    def _clear(self) -> None:
        self._schedule.clear()
        self._forget({slot.assignment for slot in self._slots if slot.assignment is not None})

    def _forget(self, assignments: Collection[Assignment]) -> None:
        """Drop everything of these assignments that has not begun, and let them hand out nothing more."""
        leaving = {*assignments}
        for assignment in leaving:
            for claim in assignment.claims:
                claim.end()
            if not isinstance(assignment.lanes, DrainingLanes):
                assignment.lanes = DrainingLanes(sum(slot.assignment is assignment for slot in self._slots))
        self._schedule.forget(leaving)

    def _leaving(self, partition: TopicPartition) -> list[DrainingLanes]:
        """Return the earlier assignments of a partition whose handlers have not come back."""
        running = {slot.assignment for slot in self._slots if slot.assignment is not None}
        return [
            assignment.lanes
            for assignment in running
            if assignment.partition == partition and isinstance(assignment.lanes, DrainingLanes)
        ]

    def check(self) -> None:
        """Assert the invariants."""
        if self.stopped.done() or self._closing:
            return
        slots, active = [*self._slots], self._schedule.active
        if max(len(slots), len(active)) > invariants.SMALL:
            return
        running = {(id(slot.claim), slot.assignment) for slot in slots}
        for assignment in {slot.assignment for slot in slots if slot.assignment is not None}:
            assert assignment.active == (assignment in active)
            assert all((id(claim), assignment) in running for claim in assignment.claims)
