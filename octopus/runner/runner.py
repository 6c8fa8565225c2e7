"""Runs records through an application: ordered, concurrent, each settled exactly once.

A few persistent lane tasks take records from the lanes of the open generations. A handler that never suspends is run
by one of them back to back, without the event loop; each real suspension lets the next lane task start. There is no
task, timer or lock per record.

A driver (worker, Lambda trigger, test client) opens a `Generation` for each partition it is given, submits what it
fetched, and reads the ledger to know what may be committed.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from functools import partial

from octopus import cancellation
from octopus.errors import HandlerStopped
from octopus.events import Batch, StoredRecord, TopicPartition
from octopus.offsets import OffsetLedger, offsets_of
from octopus.ordering import LANES, READ_AHEAD, BatchLane, Lanes, Ordering
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Deferred, Outcome, Retry, Skipped
from octopus.runner.delays import Delays
from octopus.runner.generation import DrainingLanes, Generation, resolve, when_all
from octopus.runner.lane import CANCELLED, LAST_LOOK, YIELD_AFTER, Lane, paced
from octopus.types import BatchOutcome, Bindable, Stretch
from octopus.unread import Records, Unread

Unfinished = dict[Generation, list[tuple[StoredRecord, int]]]
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
        stopped: Done, with the reason, once the line has stopped; nothing is started after that.
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
        self._lanes_of = LANES[ordering]
        self._exclusive = 1 if ordering == "partition" else 0
        self._concurrency = concurrency
        self._batch = batch
        self._within = within
        self._reschedule = reschedule
        self._loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task()
        self.stopped: asyncio.Future[HandlerStopped] = self._loop.create_future()

        self._active: deque[Generation] = deque()  # may have something to take
        self._due: deque[tuple[Generation, StoredRecord, int]] = deque()  # retries whose time has come
        self._delays = Delays(self._loop, self._due.append, self._spread_soon)

        self._lanes: dict[Lane, asyncio.Task[None]] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._spreading = False
        self._begun = 0  # stretches, of all lanes
        self._splittable: list[Lane] = []  # lanes that were given more than the record they may suspend in
        self._reach = 1  # how many records of free lanes run back to back, while handlers do not suspend
        self._ease: asyncio.Future[None] | None = None
        self._filling: set[Generation] = set()  # batches that wait for their window's end
        self._turn_awaited = False
        self._awaited_since = 0.0
        self._closing = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    # ── what a driver does ────────────────────────────────────────────────────────────────────────────────────────

    def open(
        self, partition: TopicPartition, position: int, settled_ahead: Sequence[tuple[int, int]] = ()
    ) -> Generation:
        """Begin a generation of a partition.

        Args:
            partition: Which one.
            position: The offset of the next record that will be submitted, or a lower one.
            settled_ahead: Inclusive offset ranges that an earlier owner settled; they are not run again.
        """
        lanes: Lanes = BatchLane(self._batch) if self._batch else self._lanes_of()
        ledger = OffsetLedger(position, settled_ahead)
        generation = Generation(partition, self._application.bind(partition), lanes, ledger)
        generation.active = True  # held, as if among the active ones: no record runs twice at once here
        when_all([lanes.done for lanes in self._leaving(partition)], partial(self._begin, generation))
        return generation

    def submit(self, generation: Generation, records: Records, position: int, size_bytes: int) -> None:
        """Take over consecutive records of a generation.

        Args:
            generation: Whose records they are.
            records: In offset order.
            position: Where the next fetch starts.
            size_bytes: Their size; counts for back-pressure.
        """
        if self.stopped.done() or not generation.is_open:
            return
        before = generation.bytes_in_flight
        known = generation.ledger.receive(offsets_of(records), position)
        if not records:
            return
        # Over all that is in flight: small records must not make large ones before them look small.
        generation.mean_bytes = (before + size_bytes) / (generation.ledger.in_flight + len(known))
        if known:
            read = records.read(len(records)) if isinstance(records, Unread) else records
            generation.lanes.put([record for record in read if record.offset not in known])
        if not known or isinstance(records, Unread):  # if anything is left of it, it cannot be read
            generation.lanes.put(records)
        self._activate(generation)

    def hurry(self, generation: Generation) -> None:
        """Run the batch that waits for company as it is: for now none is coming."""
        if generation.window is not None:
            generation.window.cancel()
            self._flush(generation)

    def hasten(self, generations: Collection[Generation]) -> None:
        """Run the retries of these generations that wait for their time now."""
        if generations:
            self._delays.hasten(generations)

    def withdraw(self, generations: Collection[Generation]) -> tuple[Unfinished, Unfinished]:
        """Begin nothing more of these generations; return what waits, and what runs and may still finish, with the attempts."""
        waiting: Unfinished = defaultdict(list)
        running: Unfinished = defaultdict(list)
        for lane in [*self._lanes]:
            if (generation := lane.generation) is not None and generation in generations and lane.stretch.records:
                self._split(lane)
                current = lane.stretch.current
                running[generation].append((current, lane.stretch.attempt_of(current)))
        for generation, record, attempt in [*self._delays.take(generations), *self._due]:
            if generation in generations:
                waiting[generation].append((record, attempt))
        for generation in generations:
            while records := generation.lanes.take(LAST_LOOK):
                waiting[generation] += [(record, 1) for record in records]
        self._forget(generations)
        return waiting, running

    async def drain(self, generations: Collection[Generation], timeout: float) -> bool:
        """Start nothing more of these generations and wait for what is running.

        Returns:
            Whether all of it finished within `timeout` seconds. The caller commits, then revokes the generations.
        """
        generations = [generation for generation in generations if generation.is_open]
        self._forget(generations)
        running = [generation.lanes.done for generation in generations if isinstance(generation.lanes, DrainingLanes)]
        if not running:
            return True
        _, late = await asyncio.wait(running, timeout=timeout)
        return not late

    def revoke(self, generations: Collection[Generation]) -> None:
        """Close generations, forget what waits and cancel what still runs: its records belong to somebody else now."""
        self._forget(generations)
        for generation in generations:
            generation.close()
        for lane, task in self._lanes.items():
            if lane.generation in generations:
                lane.end(task)

    async def quiet(self) -> None:
        """Wait until nothing runs and nothing could (retries that wait for their time do not count)."""
        await self._quiet.wait()

    @property
    def supply(self) -> int:
        """How many records wait for nothing but a free lane task."""
        return sum([generation.lanes.waiting for generation in self._active])

    @property
    def suspends(self) -> bool:
        """Whether the last handler, or its predecessor in its stretch, waited for something."""
        return self._reach == 1

    async def eased(self, timeout: float) -> bool:
        """Wait until some partition has nothing left to take; return False after `timeout` seconds."""
        self._ease = ease = self._loop.create_future()
        timer = self._loop.call_later(timeout, ease.cancel)
        try:
            await asyncio.wait([ease])
        finally:
            timer.cancel()
            self._ease = None
        return not ease.cancelled()

    async def close(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Cancel what is still running; nothing of it is settled, also if a handler makes an ordinary end of it.

        Returns:
            Whether all of it ended within `timeout` seconds.
        """
        self._closing = True
        self._clear()
        for lane, task in self._lanes.items():
            lane.end(task)
        return not self._lanes or not (await asyncio.wait(self._lanes.values(), timeout=timeout))[1]

    @property
    def running(self) -> list[tuple[Generation, StoredRecord, int]]:
        """The records whose handlers are running, with a number that changes from record to record."""
        # Copied first, in one step: the watchdog asks from its own thread.
        seen = [(lane.generation, lane.stretch, lane.serial) for lane in [*self._lanes]]
        return [
            (generation, stretch.current, (serial << 16) + stretch.taken)
            for generation, stretch, serial in seen
            if generation is not None and stretch.records
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

    async def _work(self, lane: Lane) -> None:
        active, stretch, stride = self._active, lane.stretch, 1
        task = self._lanes[lane]
        cancellation.judge_by(lane)
        until_look, looked = stride, self._await_turn()
        while True:
            claimed = self._claim(until_look)
            if claimed is None:
                lane.generation = None
                await self._rest()
                until_look, looked = stride, self._await_turn()
                continue
            generation, records, attempt = claimed
            lane.generation = generation
            lane.serial += 1
            stretch.begin(records, attempt)
            lane.is_alone = len(records) == 1
            if several := not lane.is_alone:
                generation.stretches.append(stretch)
                if not self._exclusive:
                    self._splittable.append(lane)
            if not self._spreading and (len(active) > self._exclusive or (several and not self._exclusive)):
                self._spread_soon()
            begun = self._begun = self._begun + 1

            outcome = await generation.run(stretch)

            if (is_cancelled := task.cancelling() or lane.is_told) and lane.is_to_end():
                raise asyncio.CancelledError  # swallowed by its handler, whose end was not an end of its work
            until_look -= len(records)
            if outcome is DONE or outcome is SKIPPED:
                generation.finish(stretch)
                self._release(generation, stretch.records)
                if self._begun != begun:
                    self._reach = 1  # others ran meanwhile: it suspended
                elif self._reach < LAST_LOOK:
                    self._reach *= 2
            else:
                self._conclude(generation, stretch, outcome)
            if is_cancelled:
                lane.generation = None
                await cancellation.take_back(task)  # or the next record would pay for it
            if until_look <= 0:
                lane.generation = None
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

    def _claim(self, limit: int) -> tuple[Generation, Sequence[StoredRecord], int] | None:
        """Take what to run: a retry whose time has come, else records of the first generation that has some."""
        active, due = self._active, self._due
        if due:
            generation, record, attempt = due.popleft()
            if (due or active) and not self._spreading:
                self._spread_soon()  # what is behind a retry does not wait for it
            return generation, (record,), attempt
        limit = min(limit, max(self._reach, READ_AHEAD) if self._exclusive else self._reach)
        while active:
            generation = active[0]
            if records := generation.lanes.take(limit):
                return generation, records, 1
            active.popleft().active = False
            waiting = generation.lanes.waiting
            if self._batch and waiting:
                self._activate(generation)  # fewer than a batch are left: their window begins
            if self._ease is not None and (self._batch or not waiting):
                resolve(self._ease)  # a lane that is only busy needs no more
        return None

    def _split(self, lane: Lane) -> None:
        """Let others run what is left of a stretch whose record suspended, and what waits for those that are finished."""
        generation, stretch = lane.generation, lane.stretch
        if generation is not None and stretch in generation.stretches and stretch.taken:
            self._reach = 1
            self._reduce(generation, stretch)

    def _reduce(self, generation: Generation, stretch: Stretch) -> None:
        """Settle what a stretch has finished and give back what has not begun; it has nothing but its running record then."""
        left = stretch.end()
        finished, running = stretch.records[:-1], stretch.records[-1]
        generation.note(stretch, len(finished))
        generation.leave(stretch)
        stretch.keep_last()
        generation.lanes.put_back(left, running)
        if generation.lanes.release(finished, (running, *left)):
            self._activate(generation)

    def _release(self, generation: Generation, records: Sequence[StoredRecord]) -> None:
        if generation.lanes.release(records) and not generation.active:
            self._activate(generation)

    # ── everything that is not the hot path ───────────────────────────────────────────────────────────────────────

    def _conclude(self, generation: Generation, stretch: Stretch, outcome: Outcome | BatchOutcome) -> None:
        """Act on the outcome of the record at which a stretch ended; what has not begun waits again."""
        if stretch in generation.stretches:
            self._reduce(generation, stretch)
        record, attempt = stretch.current, stretch.attempt_of(stretch.current)
        generation.note_skipped(stretch.skipped)
        match outcome:
            case Retry():
                self._delay(generation, record, attempt, outcome)
                return
            case BatchOutcome(outcomes, retry):
                settled = [single for single, result in outcomes if not isinstance(result, Retry)]
                again = Batch(single for single, result in outcomes if isinstance(result, Retry))
                generation.note_skipped(sum(isinstance(result, Skipped) for _, result in outcomes))
                generation.buried += sum(isinstance(result, DeadLetter) for _, result in outcomes)
                generation.ledger.settle_run(offsets_of(settled))
                if again and retry is not None:
                    self._delay(generation, again, attempt, retry)
                    return
            case Deferred():
                generation.deferred += 1
                generation.retried += outcome.retry.begun
                generation.ledger.settle(record.offset)
            case _:
                generation.buried += isinstance(outcome, DeadLetter)
                generation.note_skipped(isinstance(outcome, Skipped))
                generation.ledger.settle(record.offset)
        self._release(generation, (record,))

    def _delay(self, generation: Generation, record: StoredRecord, attempt: int, retry: Retry) -> None:
        generation.retried += retry.begun
        if isinstance(generation.lanes, DrainingLanes):
            generation.lanes.release((record,))
            return
        if not self._reschedule or self._closing or self.stopped.done():
            return  # The lane stays claimed: what comes behind this record in its lane must not run before it.
        self._delays.add(retry.after, generation, record, attempt + retry.counted)

    def _activate(self, generation: Generation) -> None:
        lanes = generation.lanes
        if isinstance(lanes, BatchLane) and not lanes.is_ready:
            if lanes.is_filling and not self._within:
                lanes.flush()
            elif lanes.is_filling and generation.window is None:
                generation.window = self._loop.call_later(self._within, self._flush, generation)
                self._filling.add(generation)
                self._quiet.clear()
            if not lanes.is_ready:
                return
        if not generation.active and not self.stopped.done():
            generation.active = True
            self._active.append(generation)
            if not self._spreading:
                self._spread_soon()

    def _flush(self, generation: Generation) -> None:
        generation.window = None
        self._filling.discard(generation)
        if isinstance(generation.lanes, BatchLane):
            generation.lanes.flush()
            if generation.lanes.is_ready:  # else its predecessor still runs, and activates it when it is done
                self._activate(generation)
        self._note_quiet()

    def _spread_soon(self) -> None:
        if self._idle and len(self._idle) == len(self._lanes):
            self._quiet.clear()
            self._idle.pop().set_result(None)  # at once: nobody runs
        # Runs only when the running lane suspends or yields: until then another lane could not run anyway.
        elif self._idle or self._splittable or len(self._lanes) < self._concurrency:
            self._spreading = True
            self._quiet.clear()
            self._loop.call_soon(self._spread)

    def _spread(self) -> None:
        self._spreading = False
        for lane in self._splittable:
            self._split(lane)
        self._splittable.clear()
        if self.stopped.done() or not (self._active or self._due):
            self._note_quiet()
        elif self._idle:
            self._idle.pop().set_result(None)
        elif len(self._lanes) < self._concurrency:
            lane = Lane(self._owner)
            self._lanes[lane] = task = self._loop.create_task(self._work(lane), name=f"octopus lane {len(self._lanes)}")
            task.add_done_callback(partial(self._lane_ended, lane))

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
        waiting = self._spreading or self._active or self._due or self._filling
        if len(self._idle) == len(self._lanes) and not waiting:
            self._quiet.set()

    def _lane_ended(self, lane: Lane, task: asyncio.Task[None]) -> None:
        self._lanes.pop(lane, None)
        generation = lane.generation
        leaving = generation is not None and isinstance(generation.lanes, DrainingLanes)
        if generation is not None and lane.stretch.records and (leaving or task.cancelled()):
            # Who is leaving no longer waits for it; otherwise whoever cancelled it was not us, so it runs again.
            if not (leaving or self._closing):
                lane.say_cancelled()
            self._conclude(generation, lane.stretch, CANCELLED)
        if not task.cancelled():
            error = task.exception()
            assert error is not None, "a lane works until it is cancelled"
            self._stop(error if isinstance(error, HandlerStopped) else HandlerStopped.by(error))
        elif self._active or self._due:
            self._spread_soon()
        self._note_quiet()

    def _stop(self, reason: HandlerStopped) -> None:
        self._clear()
        if not self.stopped.done():
            self.stopped.set_result(reason)
        if self._ease is not None:
            resolve(self._ease)
        self._quiet.set()

    def _clear(self) -> None:
        self._active.clear()
        self._due.clear()
        self._delays.clear()
        self._filling.clear()
        self._forget({lane.generation for lane in self._lanes if lane.generation is not None})

    def _forget(self, generations: Collection[Generation]) -> None:
        """Drop everything of these generations that has not begun, and let them hand out nothing more."""
        leaving = {*generations}
        self._filling -= leaving
        for generation in leaving:
            for stretch in generation.stretches:
                stretch.end()
            if not isinstance(generation.lanes, DrainingLanes):
                generation.lanes = DrainingLanes(sum(lane.generation is generation for lane in self._lanes))
        due = [entry for entry in self._due if entry[0] not in leaving]
        self._due.clear()  # the lanes hold on to this very deque
        self._due.extend(due)
        self._delays.forget(leaving)
        self._note_quiet()

    def _leaving(self, partition: TopicPartition) -> list[DrainingLanes]:
        """Return the earlier generations of a partition whose handlers have not come back."""
        running = {lane.generation for lane in self._lanes if lane.generation is not None}
        return [
            generation.lanes
            for generation in running
            if generation.partition == partition and isinstance(generation.lanes, DrainingLanes)
        ]

    def _begin(self, generation: Generation) -> None:
        generation.active = False
        if generation.lanes.waiting:
            self._activate(generation)
