"""Runs records through an application: ordered, concurrent, each settled exactly once.

A few persistent slots take records from the lanes of the open assignments. A handler that never suspends is run
by one of them back to back, without the event loop; each real suspension lets the next slot start. There is no
task, timer or lock per record.

A driver (worker, Lambda trigger, test client) opens a `Assignment` for each partition it is given, submits what it
fetched, and reads the ledger to know what may be committed.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from functools import partial

from octopus import cancellation
from octopus.claim import Claim
from octopus.errors import HandlerStopped
from octopus.events import Batch, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Deferred, Outcome, Retry, Skipped
from octopus.routing import Ordering
from octopus.runner.assignment import Assignment, DrainingLanes, resolve, when_all
from octopus.runner.delays import Delays
from octopus.runner.lanes import LANES, READ_AHEAD, BatchLane, LaneQueue
from octopus.runner.ledger import OffsetLedger, offsets_of
from octopus.runner.slot import CANCELLED, LAST_LOOK, YIELD_AFTER, Slot, paced
from octopus.types import BatchOutcome, Bindable
from octopus.unread import Records, Unread

Unfinished = dict[Assignment, list[tuple[StoredRecord, int]]]
"""Records that are not settled, with their attempts."""

CLOSE_TIMEOUT = 5.0
"""Seconds that cancelled handlers have for their clean-up."""


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
    ) -> None:
        self._application = application
        self._queue_of = LANES[ordering]
        self._exclusive = 1 if ordering == "partition" else 0
        self._concurrency = concurrency
        self._batch = batch
        self._within = within
        self._reschedule = reschedule
        self._loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task()
        self.stopped: asyncio.Future[HandlerStopped] = self._loop.create_future()

        self._active: deque[Assignment] = deque()  # may have something to take
        self._due: deque[tuple[Assignment, StoredRecord, int]] = deque()  # retries whose time has come
        self._delays = Delays(self._loop, self._due.append, self._start_next_slot_soon)

        self._slots: dict[Slot, asyncio.Task[None]] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._is_starting_slot = False
        self._begun = 0  # claims, of all lanes
        self._splittable: list[Slot] = []  # lanes that were given more than the record they may suspend in
        self._claim_limit = 1  # how many records of free lanes run back to back, while handlers do not suspend
        self._demand: asyncio.Future[None] | None = None
        self._filling: set[Assignment] = set()  # batches that wait for their window's end
        self._turn_awaited = False
        self._awaited_since = 0.0
        self._closing = False
        self._quiet = asyncio.Event()
        self._quiet.set()

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
        lanes: LaneQueue = BatchLane(self._batch) if self._batch else self._queue_of()
        ledger = OffsetLedger(position, settled_ahead)
        assignment = Assignment(partition, self._application.bind(partition), lanes, ledger)
        assignment.active = True  # held, as if among the active ones: no record runs twice at once here
        when_all([lanes.done for lanes in self._leaving(partition)], partial(self._begin, assignment))
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
        if known:
            read = records.read(len(records)) if isinstance(records, Unread) else records
            assignment.lanes.put([record for record in read if record.offset not in known])
        if not known or isinstance(records, Unread):  # if anything is left of it, it cannot be read
            assignment.lanes.put(records)
        self._activate(assignment)

    def flush_batch(self, assignment: Assignment) -> None:
        """Run the batch that waits for company as it is: for now none is coming."""
        if assignment.window is not None:
            assignment.window.cancel()
            self._flush(assignment)

    def hasten(self, assignments: Collection[Assignment]) -> None:
        """Run the retries of these assignments that wait for their time now."""
        if assignments:
            self._delays.hasten(assignments)

    def withdraw(self, assignments: Collection[Assignment]) -> tuple[Unfinished, Unfinished]:
        """Begin nothing more of these assignments; return what waits, and what runs and may still finish, with the attempts."""
        waiting: Unfinished = defaultdict(list)
        running: Unfinished = defaultdict(list)
        for slot in [*self._slots]:
            if (assignment := slot.assignment) is not None and assignment in assignments and slot.claim.records:
                self._split(slot)
                current = slot.claim.current
                running[assignment].append((current, slot.claim.attempt_of(current)))
        for assignment, record, attempt in [*self._delays.take(assignments), *self._due]:
            if assignment in assignments:
                waiting[assignment].append((record, attempt))
        for assignment in assignments:
            while records := assignment.lanes.take(LAST_LOOK):
                waiting[assignment] += [(record, 1) for record in records]
        self._forget(assignments)
        return waiting, running

    async def drain(self, assignments: Collection[Assignment], timeout: float) -> bool:
        """Start nothing more of these assignments and wait for what is running.

        Returns:
            Whether all of it finished within `timeout` seconds. The caller commits, then revokes the assignments.
        """
        assignments = [assignment for assignment in assignments if assignment.is_open]
        self._forget(assignments)
        running = [assignment.lanes.done for assignment in assignments if isinstance(assignment.lanes, DrainingLanes)]
        if not running:
            return True
        _, late = await asyncio.wait(running, timeout=timeout)
        return not late

    def revoke(self, assignments: Collection[Assignment]) -> None:
        """Close assignments, forget what waits and cancel what still runs: its records belong to somebody else now."""
        self._forget(assignments)
        for assignment in assignments:
            assignment.close()
        for slot, task in self._slots.items():
            if slot.assignment in assignments:
                slot.end(task)

    async def quiet(self) -> None:
        """Wait until nothing runs and nothing could (retries that wait for their time do not count)."""
        await self._quiet.wait()

    @property
    def supply(self) -> int:
        """How many records wait for nothing but a free slot."""
        return sum([assignment.lanes.waiting for assignment in self._active])

    @property
    def suspends(self) -> bool:
        """Whether the last handler, or its predecessor in its claim, waited for something."""
        return self._claim_limit == 1

    async def wait_for_demand(self, timeout: float) -> bool:
        """Wait until some partition has nothing left to take; return False after `timeout` seconds."""
        self._demand = demand = self._loop.create_future()
        timer = self._loop.call_later(timeout, demand.cancel)
        try:
            await asyncio.wait([demand])
        finally:
            timer.cancel()
            self._demand = None
        return not demand.cancelled()

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Cancel what is still running; nothing of it is settled, also if a handler makes an ordinary end of it.

        Returns:
            Whether all of it ended within `timeout` seconds.
        """
        self._closing = True
        self._clear()
        for slot, task in self._slots.items():
            slot.end(task)
        return not self._slots or not (await asyncio.wait(self._slots.values(), timeout=timeout))[1]

    @property
    def running(self) -> list[tuple[Assignment, StoredRecord, int]]:
        """The records whose handlers are running, with a number that changes from record to record."""
        # Copied first, in one step: the watchdog asks from its own thread.
        seen = [(slot.assignment, slot.claim, slot.serial) for slot in [*self._slots]]
        return [
            (assignment, claim.current, (serial << 16) + claim.taken)
            for assignment, claim, serial in seen
            if assignment is not None and claim.records
        ]

    @property
    def delayed(self) -> int:
        """How many records wait for their next attempt."""
        return len(self._delays) + len(self._due)

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, in loop time."""
        return self._delays.next_due

    # ── the hot path ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _work(self, slot: Slot) -> None:
        active, claim, stride = self._active, slot.claim, 1
        task = self._slots[slot]
        cancellation.judge_by(slot)
        until_look, looked = stride, self._await_turn()
        while True:
            claimed = self._claim(until_look)
            if claimed is None:
                slot.assignment = None
                await self._rest()
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
                    self._splittable.append(slot)
            if not self._is_starting_slot and (len(active) > self._exclusive or (several and not self._exclusive)):
                self._start_next_slot_soon()
            begun = self._begun = self._begun + 1

            outcome = await assignment.run(claim)

            if (is_cancelled := task.cancelling() or slot.is_told) and slot.is_to_end():
                raise asyncio.CancelledError  # swallowed by its handler, whose end was not an end of its work
            until_look -= len(records)
            if outcome is DONE or outcome is SKIPPED:
                assignment.finish(claim)
                self._release(assignment, claim.records)
                if self._begun != begun:
                    self._claim_limit = 1  # others ran meanwhile: it suspended
                elif self._claim_limit < LAST_LOOK:
                    self._claim_limit *= 2
            else:
                self._conclude(assignment, claim, outcome)
            if is_cancelled:
                slot.assignment = None
                await cancellation.take_back(task)  # or the next record would pay for it
            if until_look <= 0:
                slot.assignment = None
                stride, looked = await self._look(stride, looked)
                until_look = stride

    async def _look(self, stride: int, looked: float) -> tuple[int, float]:
        """Look at the clock and let the loop have its turn when that is due; return after how many records to look again."""
        now = self._loop.time()
        elapsed = now - looked
        if self._turn_awaited:
            is_late = now - self._awaited_since > YIELD_AFTER
            stride = paced(stride, elapsed)
        else:  # it had its turn, because handlers suspend
            is_late = elapsed > YIELD_AFTER
            stride = stride if is_late else min(2 * stride, LAST_LOOK)
        if is_late:
            self._active.rotate(-1)  # one busy partition does not keep the others waiting
            if self._turn_awaited:
                await asyncio.sleep(0)
        return stride, self._await_turn()

    def _claim(self, limit: int) -> tuple[Assignment, Sequence[StoredRecord], int] | None:
        """Take what to run: a retry whose time has come, else records of the first assignment that has some."""
        active, due = self._active, self._due
        if due:
            assignment, record, attempt = due.popleft()
            if (due or active) and not self._is_starting_slot:
                self._start_next_slot_soon()  # what is behind a retry does not wait for it
            return assignment, (record,), attempt
        limit = min(limit, max(self._claim_limit, READ_AHEAD) if self._exclusive else self._claim_limit)
        while active:
            assignment = active[0]
            if records := assignment.lanes.take(limit):
                return assignment, records, 1
            active.popleft().active = False
            waiting = assignment.lanes.waiting
            if self._batch and waiting:
                self._activate(assignment)  # fewer than a batch are left: their window begins
            if self._demand is not None and (self._batch or not waiting):
                resolve(self._demand)  # a lane that is only busy needs no more
        return None

    def _split(self, slot: Slot) -> None:
        """Let others run what is left of a claim whose record suspended, and what waits for those that are finished."""
        assignment, claim = slot.assignment, slot.claim
        if assignment is not None and claim in assignment.claims and claim.taken:
            self._claim_limit = 1
            self._reduce(assignment, claim)

    def _reduce(self, assignment: Assignment, claim: Claim) -> None:
        """Settle what a claim has finished and give back what has not begun; it has nothing but its running record then."""
        left = claim.end()
        finished, running = claim.records[:-1], claim.records[-1]
        assignment.note(claim, len(finished))
        assignment.leave(claim)
        claim.keep_last()
        assignment.lanes.put_back(left, running)
        if assignment.lanes.release(finished, (running, *left)):
            self._activate(assignment)

    def _release(self, assignment: Assignment, records: Sequence[StoredRecord]) -> None:
        if assignment.lanes.release(records) and not assignment.active:
            self._activate(assignment)

    # ── everything that is not the hot path ───────────────────────────────────────────────────────────────────────

    def _conclude(self, assignment: Assignment, claim: Claim, outcome: Outcome | BatchOutcome) -> None:
        """Act on the outcome of the record at which a claim ended; what has not begun waits again."""
        if claim in assignment.claims:
            self._reduce(assignment, claim)
        record, attempt = claim.current, claim.attempt_of(claim.current)
        assignment.note_skipped(claim.skipped)
        match outcome:
            case Retry():
                self._delay(assignment, record, attempt, outcome)
                return
            case BatchOutcome(outcomes, retry):
                settled = [single for single, result in outcomes if not isinstance(result, Retry)]
                again = Batch(single for single, result in outcomes if isinstance(result, Retry))
                assignment.note_skipped(sum(isinstance(result, Skipped) for _, result in outcomes))
                assignment.dead_lettered += sum(isinstance(result, DeadLetter) for _, result in outcomes)
                assignment.ledger.settle_run(offsets_of(settled))
                if again and retry is not None:
                    self._delay(assignment, again, attempt, retry)
                    return
            case Deferred():
                assignment.deferred += 1
                assignment.retried += outcome.retry.begun
                assignment.ledger.settle(record.offset)
            case _:
                assignment.dead_lettered += isinstance(outcome, DeadLetter)
                assignment.note_skipped(isinstance(outcome, Skipped))
                assignment.ledger.settle(record.offset)
        self._release(assignment, (record,))

    def _delay(self, assignment: Assignment, record: StoredRecord, attempt: int, retry: Retry) -> None:
        assignment.retried += retry.begun
        if isinstance(assignment.lanes, DrainingLanes):
            assignment.lanes.release((record,))
            return
        if not self._reschedule or self._closing or self.stopped.done():
            return  # The lane stays claimed: what comes behind this record in its lane must not run before it.
        self._delays.add(retry.after, assignment, record, attempt + retry.counted)

    def _activate(self, assignment: Assignment) -> None:
        lanes = assignment.lanes
        if isinstance(lanes, BatchLane) and not lanes.is_ready:
            if lanes.is_filling and not self._within:
                lanes.flush()
            elif lanes.is_filling and assignment.window is None:
                assignment.window = self._loop.call_later(self._within, self._flush, assignment)
                self._filling.add(assignment)
                self._quiet.clear()
            if not lanes.is_ready:
                return
        if not assignment.active and not self.stopped.done():
            assignment.active = True
            self._active.append(assignment)
            if not self._is_starting_slot:
                self._start_next_slot_soon()

    def _flush(self, assignment: Assignment) -> None:
        assignment.window = None
        self._filling.discard(assignment)
        if isinstance(assignment.lanes, BatchLane):
            assignment.lanes.flush()
            if assignment.lanes.is_ready:  # else its predecessor still runs, and activates it when it is done
                self._activate(assignment)
        self._note_quiet()

    def _start_next_slot_soon(self) -> None:
        if self._idle and len(self._idle) == len(self._slots):
            self._quiet.clear()
            self._idle.pop().set_result(None)  # at once: nobody runs
        # Runs only when the running lane suspends or yields: until then another lane could not run anyway.
        elif self._idle or self._splittable or len(self._slots) < self._concurrency:
            self._is_starting_slot = True
            self._quiet.clear()
            self._loop.call_soon(self._start_next_slot)

    def _start_next_slot(self) -> None:
        self._is_starting_slot = False
        for slot in self._splittable:
            self._split(slot)
        self._splittable.clear()
        if self.stopped.done() or not (self._active or self._due):
            self._note_quiet()
        elif self._idle:
            self._idle.pop().set_result(None)
        elif len(self._slots) < self._concurrency:
            slot = Slot(self._owner)
            self._slots[slot] = task = self._loop.create_task(self._work(slot), name=f"octopus lane {len(self._slots)}")
            task.add_done_callback(partial(self._lane_ended, slot))

    def _await_turn(self) -> float:
        """Note from now on whether the loop has had a turn; return the time."""
        now = self._loop.time()
        if not self._turn_awaited:
            self._turn_awaited, self._awaited_since = True, now
            self._loop.call_soon(self._turn)
        return now

    def _turn(self) -> None:
        self._turn_awaited = False

    async def _rest(self) -> None:
        turn = self._loop.create_future()
        self._idle.append(turn)
        self._note_quiet()
        try:
            await turn
        finally:
            if turn in self._idle:
                self._idle.remove(turn)

    def _note_quiet(self) -> None:
        waiting = self._is_starting_slot or self._active or self._due or self._filling
        if len(self._idle) == len(self._slots) and not waiting:
            self._quiet.set()

    def _lane_ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self._slots.pop(slot, None)
        assignment = slot.assignment
        leaving = assignment is not None and isinstance(assignment.lanes, DrainingLanes)
        if assignment is not None and slot.claim.records and (leaving or task.cancelled()):
            # Who is leaving no longer waits for it; otherwise whoever cancelled it was not us, so it runs again.
            if not (leaving or self._closing):
                slot.say_cancelled()
            self._conclude(assignment, slot.claim, CANCELLED)
        if not task.cancelled():
            error = task.exception()
            assert error is not None, "a lane works until it is cancelled"
            self._stop(error if isinstance(error, HandlerStopped) else HandlerStopped.by(error))
        elif self._active or self._due:
            self._start_next_slot_soon()
        self._note_quiet()

    def _stop(self, reason: HandlerStopped) -> None:
        self._clear()
        if not self.stopped.done():
            self.stopped.set_result(reason)
        if self._demand is not None:
            resolve(self._demand)
        self._quiet.set()

    def _clear(self) -> None:
        self._active.clear()
        self._due.clear()
        self._delays.clear()
        self._filling.clear()
        self._forget({slot.assignment for slot in self._slots if slot.assignment is not None})

    def _forget(self, assignments: Collection[Assignment]) -> None:
        """Drop everything of these assignments that has not begun, and let them hand out nothing more."""
        leaving = {*assignments}
        self._filling -= leaving
        for assignment in leaving:
            for claim in assignment.claims:
                claim.end()
            if not isinstance(assignment.lanes, DrainingLanes):
                assignment.lanes = DrainingLanes(sum(slot.assignment is assignment for slot in self._slots))
        due = [entry for entry in self._due if entry[0] not in leaving]
        self._due.clear()  # the lanes hold on to this very deque
        self._due.extend(due)
        self._delays.forget(leaving)
        self._note_quiet()

    def _leaving(self, partition: TopicPartition) -> list[DrainingLanes]:
        """Return the earlier assignments of a partition whose handlers have not come back."""
        running = {slot.assignment for slot in self._slots if slot.assignment is not None}
        return [
            assignment.lanes
            for assignment in running
            if assignment.partition == partition and isinstance(assignment.lanes, DrainingLanes)
        ]

    def _begin(self, assignment: Assignment) -> None:
        assignment.active = False
        if assignment.lanes.waiting:
            self._activate(assignment)
