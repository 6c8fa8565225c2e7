"""What waits to run, and whose turn is next: retries that are due, then assignments in turn, each by its lanes.

Invariants, between any two steps:

- An assignment is in `active` exactly when its `active` is set, once; but a held one is nowhere. It is held from when it is opened
  until every handler of the partition's earlier assignments has come back: no record runs twice at once.
- An assignment with something to take is active, or held. `claim` alone makes one inactive, when it has nothing to take; what gives
  it something (records, a lane that is freed, a window that ends) makes it active again. So none is forgotten.
- A retry is in `_delays` until its time has come, then in `due` until it runs; its lane stays claimed. One whose lane went on
  without it is in `_without_lane` until then, and waits in its lane afterwards, before the others, and alone; its assignment remembers
  the attempt (`again`). Of an assignment that hands out nothing more, none of these has any, and no batch waits for company.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence

from octopus import invariants
from octopus.events import StoredRecord
from octopus.runner.assignment import Assignment
from octopus.runner.batch_windows import BatchWindows
from octopus.runner.delays import Delays
from octopus.runner.draining import DrainingLanes, resolve
from octopus.runner.lanes import READ_AHEAD, BatchLane
from octopus.runner.pacing import Pacing
from octopus.runner.slots import Slots

Attempted = tuple[Assignment, StoredRecord, int]
"""A record with its attempt."""


@invariants.hold_after(
    "hold", "let_go", "activate", "claim", "delay", "delay_without_lane", "_fall_due", "hasten", "forget", "clear"
)
class Schedule:
    """What waits in one runner.

    Args:
        slots: Are told when there is something to take.
        pacing: How many records a claim may have.
        in_turn: Whether the lanes of an assignment are one, so that what is behind a record waits for it in any case.
        within: Longest wait for a batch to fill, seconds.

    Attributes:
        active: May have something to take; the first has its turn.
        due: Retries whose time has come.
    """

    def __init__(self, slots: Slots, pacing: Pacing, *, in_turn: bool, within: float) -> None:
        self.active: deque[Assignment] = deque()
        self.due: deque[Attempted] = deque()
        self._held: set[Assignment] = set()
        self._slots = slots
        self._pacing = pacing
        self._in_turn = in_turn
        self._loop = asyncio.get_running_loop()
        self._delays = Delays(self._loop, self._fall_due, slots.start_next_soon)
        self._without_lane: set[tuple[Assignment, int]] = set()  # of those that are delayed, by offset
        self._windows = BatchWindows(within, self._end_window)
        self._demand: asyncio.Future[None] | None = None
        self._is_over = False

    def claim(self, limit: int) -> tuple[Assignment, Sequence[StoredRecord], int] | None:
        """Take what to run: a retry whose time has come, else records of the first assignment that has some."""
        active, due = self.active, self.due
        if due:
            assignment, record, attempt = due.popleft()
            if due or active:
                self._slots.start_next_soon()  # what is behind a retry does not wait for it
            return assignment, (record,), attempt
        most = self._pacing.claim_limit
        limit = min(limit, max(most, READ_AHEAD) if self._in_turn else most)
        while active:
            assignment = active[0]
            if assignment.again:
                if records := assignment.lanes.take(1):
                    return assignment, records, assignment.again.pop(records[0].offset, 1)
            elif records := assignment.lanes.take(limit):
                return assignment, records, 1
            active.popleft().active = False
            waiting = assignment.lanes.waiting
            is_batch = isinstance(assignment.lanes, BatchLane)
            if is_batch and waiting:
                self.activate(assignment)  # fewer than a batch are left: their window begins
            if self._demand is not None and (is_batch or not waiting):
                resolve(self._demand)  # a lane that is only busy needs no more
        return None

    def activate(self, assignment: Assignment) -> None:
        """Give an assignment its turn, or its batch a window; it has something to take, or will have."""
        lanes = assignment.lanes
        if isinstance(lanes, BatchLane) and not lanes.is_ready:
            if lanes.is_filling and self._windows.open(assignment, lanes):
                self._slots.quiet.clear()
            if not lanes.is_ready:
                return
        if not assignment.active and not self._is_over:
            assignment.active = True
            self.active.append(assignment)
            self._slots.start_next_soon()

    def hold(self, assignment: Assignment) -> None:
        """Give an assignment no turn before it is let go."""
        assignment.active = True  # as if it had its turn, so that nothing gives it one
        self._held.add(assignment)

    def let_go(self, assignment: Assignment) -> None:
        """Hold an assignment no more."""
        self._held.discard(assignment)
        assignment.active = False
        if assignment.lanes.waiting:
            self.activate(assignment)

    def flush_batch(self, assignment: Assignment) -> None:
        """Run the batch that waits for company as it is."""
        self._windows.end(assignment)

    def _end_window(self, assignment: Assignment) -> None:
        if isinstance(assignment.lanes, BatchLane):
            assignment.lanes.flush()
            if assignment.lanes.is_ready:  # else its predecessor still runs, and activates it when it is done
                self.activate(assignment)
        self._slots.note_quiet()

    def delay(self, after: float, assignment: Assignment, record: StoredRecord, attempt: int) -> None:
        """Keep a record, whose lane stays claimed, until its next attempt is due, in `after` seconds."""
        self._delays.add(after, assignment, record, attempt)

    def delay_without_lane(self, after: float, assignment: Assignment, record: StoredRecord, attempt: int) -> None:
        """Keep a record, or batch, whose lane goes on without it; it claims its lane again before it runs."""
        self._without_lane.add((assignment, record.offset))
        self._delays.add(after, assignment, record, attempt)

    def _fall_due(self, entry: Attempted) -> None:
        assignment, record, attempt = entry
        if (assignment, record.offset) not in self._without_lane:
            self.due.append(entry)
            return
        self._without_lane.discard((assignment, record.offset))
        assignment.again[record.offset] = attempt
        assignment.lanes.put_first(record)
        self.activate(assignment)

    def hasten(self, assignments: Collection[Assignment]) -> None:
        """Let the retries of these assignments be due now."""
        if assignments:
            self._delays.hasten(assignments)

    def retries_of(self, assignments: Collection[Assignment]) -> list[Attempted]:
        """Give up the retries of these assignments that are not due, and return them with those that are."""
        return [*self._delays.take(assignments), *(entry for entry in self.due if entry[0] in assignments)]

    def forget(self, assignments: Collection[Assignment]) -> None:
        """Drop what waits of assignments that hand out nothing more."""
        self._windows.forget(assignments)
        due = [entry for entry in self.due if entry[0] not in assignments]
        self.due.clear()  # the slots hold on to this very deque
        self.due.extend(due)
        self._delays.forget(assignments)
        self._without_lane = {entry for entry in self._without_lane if entry[0] not in assignments}
        self._slots.note_quiet()

    def clear(self) -> None:
        """Drop everything that waits."""
        self.active.clear()
        self.due.clear()
        self._delays.clear()
        self._without_lane.clear()
        self._windows.clear()

    def stop(self) -> None:
        """Give no more turns, and end every wait for demand."""
        self.clear()
        self._is_over = True
        if self._demand is not None:
            resolve(self._demand)

    async def wait_for_demand(self, timeout: float) -> bool:
        """Wait until some assignment has nothing left to take; return False after `timeout` seconds."""
        self._demand = demand = self._loop.create_future()
        timer = self._loop.call_later(timeout, demand.cancel)
        try:
            await asyncio.wait([demand])
        finally:
            timer.cancel()
            self._demand = None
        return not demand.cancelled()

    def note_room(self) -> None:
        """End the wait for demand: records have settled, and there may be room for others."""
        if self._demand is not None:
            resolve(self._demand)

    def has_work(self) -> bool:
        """Tell whether there may be something to take."""
        return bool(self.active or self.due)

    def is_filling(self) -> bool:
        """Tell whether a batch waits for its window's end."""
        return bool(self._windows)

    @property
    def supply(self) -> int:
        """How many records wait for nothing but a free slot."""
        return sum([assignment.lanes.waiting for assignment in self.active])

    @property
    def delayed(self) -> int:
        """How many records wait for their next attempt."""
        return len(self._delays) + len(self.due)

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, in loop time."""
        return self._delays.next_due

    def check(self) -> None:
        """Assert the invariants, as far as they can be seen from here."""
        if len(self.active) > invariants.SMALL:
            return
        active = {*self.active}
        assert len(active) == len(self.active)
        assert all(each.active for each in active)
        assert all(each.active and each not in active for each in self._held)
        assert not any(isinstance(assignment.lanes, DrainingLanes) for assignment, _, _ in self.due)
        assert not any(isinstance(assignment.lanes, DrainingLanes) for assignment, _ in self._without_lane)
        if len(self._delays) <= invariants.SMALL:
            assert self._without_lane <= {(assignment, record.offset) for assignment, record, _ in self._delays}
