"""Records whose outputs a broker has refused, after they were done and their lanes had gone on.

Invariants, between any two steps:

- A record is here from when its turn to settle came until all its refusals are concluded; then it is settled, waits for another
  attempt, or was left to the next owner. Its assignment counts it (`concluding`) meanwhile.
- Refusals are concluded one after the other, in the order in which their records would have settled, by one task at most.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from octopus import invariants
from octopus.events import StoredRecord
from octopus.outcomes import DeadLetter, Outcome, Retry
from octopus.runner.assignment import Assignment
from octopus.types import BatchOutcome
from octopus.unacknowledged import Refused

Late = Callable[[Assignment, Refused, Sequence[Outcome | BatchOutcome]], None]
"""Acts on what the handlers of a record came to whose lane has gone on."""


@invariants.hold_after("add", "_conclude", "_forget")
class Refusals:
    """Takes such records the road of failure.

    Args:
        act: Acts on what they come to.
        failed: Called with what is no event's failure; nothing more is concluded then.

    Attributes:
        moved: Set whenever something settled late, or was concluded.
    """

    def __init__(self, act: Late, failed: Callable[[Exception], None]) -> None:
        self.moved = asyncio.Event()
        self._act = act
        self._failed = failed
        self._waiting: deque[tuple[Assignment, Refused]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def __bool__(self) -> bool:
        """Whether something is concluded."""
        return self._task is not None

    def add(self, assignment: Assignment, refused: Sequence[Refused]) -> None:
        """Conclude what was refused of records of an assignment."""
        if not self._is_closed:
            assignment.unacknowledged.concluding += len(refused)
            self._waiting.extend((assignment, each) for each in refused)
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._conclude(), name="octopus refused outputs")
        self.moved.set()

    def of(self, assignment: Assignment) -> Iterator[StoredRecord]:
        """Go over the records of an assignment that are here."""
        for other, refused in self._waiting:
            if other is assignment:
                yield from refused.records

    async def _conclude(self) -> None:
        try:
            while self._waiting:
                assignment, refused = self._waiting[0]
                if assignment.is_open:
                    outcomes = [await refusal.conclude() for refusal in refused.refusals]
                    self._act(assignment, refused, outcomes)
                self._waiting.popleft()
                assignment.unacknowledged.concluding -= 1
                self.moved.set()
        except Exception as error:  # noqa: BLE001 - as of a slot
            self._forget()
            self._failed(error)
        finally:
            self._task = None
            self.moved.set()

    def _forget(self) -> None:
        """Leave everything that is here to the next owner, and end the wait for it."""
        self._is_closed = True
        for assignment, _ in self._waiting:
            assignment.unacknowledged.concluding -= 1
        self._waiting.clear()

    def close(self) -> list[asyncio.Task[None]]:
        """Conclude nothing more; return the task that is about to end."""
        self._forget()
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    def check(self) -> None:
        """Assert the invariants."""
        assert self._is_closed or bool(self._waiting) == (self._task is not None)
        assert all(assignment.unacknowledged.concluding > 0 for assignment, _ in self._waiting)


def verdict(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return what becomes of a record, of what it came to in each handler whose outputs were refused.

    It waits as long as any handler wants; one that a handler gives up counts as given up.

    Args:
        outcomes: In the order in which the handlers were refused; none where all of them take batches.
    """
    retries = [outcome for outcome in outcomes if isinstance(outcome, Retry)]
    if retries:
        return max(retries, key=lambda retry: retry.after)
    dead = [outcome for outcome in outcomes if isinstance(outcome, DeadLetter)]
    return next(iter(dead or outcomes), None)
