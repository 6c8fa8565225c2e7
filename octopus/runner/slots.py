"""The tasks that run handlers: started one by one, as handlers suspend, and woken when there is something to run.

Invariants, between any two steps:

- Each slot has one task, and there are at most `concurrency` of them. A slot is idle exactly while its task is in `rest`; it runs
  no assignment then.
- `is_starting` exactly while a call of `_start_next` is scheduled. That call can only run when the running slot suspends or
  yields, so one such call at a time is enough: the slot that it wakes asks for the next one when it finds more.
- Where something can be taken, a slot is starting, or all slots run (each looks for more when it is done).
- `quiet` is set exactly when all slots are idle, none is starting and nothing waits; or processing has stopped.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial

from octopus import invariants
from octopus.events import StoredRecord
from octopus.runner.assignment import Assignment
from octopus.runner.slot import Slot


@invariants.hold_after("start_next_soon", "_start_next", "note_quiet", "stop")
class Slots:
    """The slots of one runner.

    Args:
        concurrency: How many there are at most.
        work: What each does until it is cancelled: runs what there is, and rests.
        has_work: Whether there is something to take.
        is_filling: Whether something will be there by itself: a batch waits for its window's end.
        split: Lets others have what a claim has not begun; called for each of `splittable` when its handler suspends.
        ended: Hears of a slot whose task has ended.

    Attributes:
        tasks: The slots and what runs them.
        splittable: Those that were given more than the record they may suspend in.
        is_starting: Whether the next one will be started, or woken.
        quiet: Nothing runs, and nothing could.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        work: Callable[[Slot], Coroutine[None, None, None]],
        has_work: Callable[[], bool],
        is_filling: Callable[[], bool],
        split: Callable[[Slot], None],
        ended: Callable[[Slot, asyncio.Task[None]], None],
    ) -> None:
        self.tasks: dict[Slot, asyncio.Task[None]] = {}
        self.splittable: list[Slot] = []
        self.is_starting = False
        self.quiet = asyncio.Event()
        self.quiet.set()
        self._concurrency = concurrency
        self._work = work
        self._has_work = has_work
        self._is_filling = is_filling
        self._split = split
        self._ended = ended
        self._idle: list[asyncio.Future[None]] = []
        self._is_stopped = False
        self._loop = asyncio.get_running_loop()
        self._owner = asyncio.current_task()

    def __iter__(self) -> Iterator[Slot]:
        # Copied first, in one step: the watchdog asks from its own thread.
        return iter([*self.tasks])

    @property
    def running(self) -> list[tuple[Assignment, StoredRecord, int]]:
        """The records whose handlers are running, with a number that changes from record to record."""
        seen = [(slot.assignment, slot.claim, slot.serial) for slot in self]
        return [
            (assignment, claim.current_of(records), (serial << 16) + claim.taken)
            for assignment, claim, serial in seen
            if assignment is not None and (records := claim.records)
        ]

    def start_next_soon(self) -> None:
        """Let one more slot look for something to take, if there is one that does not run."""
        if self.is_starting:
            return
        if self._idle and len(self._idle) == len(self.tasks):
            self.quiet.clear()
            self._idle.pop().set_result(None)  # at once: no slot runs
        # Runs only when the running slot suspends or yields: until then another slot could not run anyway.
        elif self._idle or self.splittable or len(self.tasks) < self._concurrency:
            self.is_starting = True
            self.quiet.clear()
            self._loop.call_soon(self._start_next)

    def _start_next(self) -> None:
        self.is_starting = False
        for slot in self.splittable:
            self._split(slot)
        self.splittable.clear()
        if not self._has_work():
            self.note_quiet()
        elif self._idle:
            self._idle.pop().set_result(None)
        elif len(self.tasks) < self._concurrency:
            slot = Slot(self._owner)
            self.tasks[slot] = task = self._loop.create_task(self._work(slot), name=f"octopus slot {len(self.tasks)}")
            task.add_done_callback(partial(self._task_ended, slot))

    async def rest(self) -> None:
        """Wait until there is something to take."""
        turn = self._loop.create_future()
        self._idle.append(turn)
        self.note_quiet()
        try:
            await turn
        finally:
            if turn in self._idle:
                self._idle.remove(turn)

    def note_quiet(self) -> None:
        """Set `quiet` if nothing runs and nothing could."""
        if len(self._idle) == len(self.tasks) and not (self.is_starting or self._has_work() or self._is_filling()):
            self.quiet.set()

    def stop(self) -> None:
        """Start nothing more; who waits for quiet need not wait for what still runs."""
        self._is_stopped = True
        self.quiet.set()

    def end(self, slot: Slot) -> None:
        """Tell a slot's task to end."""
        slot.end(self.tasks[slot])

    def _task_ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self.tasks.pop(slot, None)
        self._ended(slot, task)
        self.note_quiet()

    def check(self) -> None:
        """Assert the invariants."""
        idle, tasks = len(self._idle), len(self.tasks)
        assert idle <= tasks <= self._concurrency
        if tasks <= invariants.SMALL:
            assert idle <= sum(slot.assignment is None for slot in self.tasks)
        if self.quiet.is_set() and not self._is_stopped:
            assert idle == sum(not task.done() for task in self.tasks.values())  # several may have ended at once
            assert not self.is_starting
            assert not self._is_filling()
