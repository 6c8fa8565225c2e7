"""Batches that wait for company, each until its window ends.

Invariant, between any two steps: an assignment is here exactly while its timer runs, of which it has one at most: from when fewer
records of it than a batch wait until the window ends, also where a full batch was taken meanwhile, or the assignment is forgotten.
"""

import asyncio
from collections.abc import Callable, Collection

from octopus import invariants
from octopus.runner.assignment import Assignment
from octopus.runner.lanes import BatchLane


@invariants.hold_after("open", "end", "forget", "clear")
class BatchWindows:
    """The windows of one runner's batches.

    Args:
        within: Longest wait for a batch to fill, seconds.
        ended: Called with each assignment whose window is over.
    """

    def __init__(self, within: float, ended: Callable[[Assignment], None]) -> None:
        self._within = within
        self._ended = ended
        self._timers: dict[Assignment, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._timers)

    def open(self, assignment: Assignment, lanes: BatchLane) -> bool:
        """Begin the window of a batch that is filling, unless it is open; return False where there is nothing to wait for."""
        if not self._within:
            lanes.flush()
            return False
        if assignment not in self._timers:
            self._timers[assignment] = self._loop.call_later(self._within, self.end, assignment)
        return True

    def end(self, assignment: Assignment) -> None:
        """End a window, before its time too; do nothing where none is open."""
        timer = self._timers.pop(assignment, None)
        if timer is not None:
            timer.cancel()
            self._ended(assignment)

    def forget(self, assignments: Collection[Assignment]) -> None:
        """Close the windows of these assignments: their batches will not run."""
        for assignment in assignments:
            if (timer := self._timers.pop(assignment, None)) is not None:
                timer.cancel()

    def clear(self) -> None:
        """Close all windows."""
        self.forget([*self._timers])

    def check(self) -> None:
        """Assert the invariant: of the lanes, which are the runner's, only what they are here can be said."""
        assert all(not timer.cancelled() for timer in self._timers.values())
        assert self._within or not self._timers
