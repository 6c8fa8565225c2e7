"""A slot, as others see it, and how often it looks at the clock."""

import asyncio

from octopus.claim import Claim
from octopus.logs import get_logger
from octopus.outcomes import Retry
from octopus.runner.assignment import Assignment

logger = get_logger("octopus.handlers")

CANCELLED = Retry(1.0)
"""What becomes of a record whose task somebody else cancelled, when nobody has made a failure of it."""

YIELD_AFTER = 0.005
"""Seconds a lane may run handlers that never suspend before the loop gets its turn (heartbeats, commits, fetches)."""

LAST_LOOK = 256
"""Most records between two looks at the clock; fewer until they prove quick. Also how many run back to back: what each
claim costs is nothing to a record of a long one."""

SHARE = 0.25
"""Of `YIELD_AFTER`, from look to look, when they prove slow: so much later than it should be the loop's turn may come."""


class Slot:
    """What one slot is doing, for those who drain or watch.

    Args:
        owner: The task that everything here is done for.

    Attributes:
        assignment: Whose records it runs; None while it has none.
        claim: Those records.
        serial: A number that changes from claim to claim.
        is_alone: Whether the claim began with one record only.
        is_told: To end.
    """

    __slots__ = ("_owner", "assignment", "claim", "is_alone", "is_told", "serial")

    def __init__(self, owner: asyncio.Task[object] | None) -> None:
        self.assignment: Assignment | None = None
        self.claim = Claim(())
        self.serial = 0
        self._owner = owner
        self.is_alone = True
        self.is_told = False

    def end(self, task: asyncio.Task[None]) -> None:
        """Tell the lane's task to end, whatever its handler makes of that."""
        self.is_told = True
        task.cancel()

    def is_to_end(self) -> bool:
        """Tell whether its task, which was cancelled, is to end: it was told so, or whoever cancelled it meant everything."""
        return self.is_told or (self._owner is not None and self._owner.cancelling() > 0)

    def say_cancelled(self) -> None:
        """Write down that somebody else cancelled its task."""
        logger.warning(
            "the task that runs %s@%d was cancelled by somebody else; the event runs again in %g s",
            self.assignment and self.assignment.partition,
            self.claim.current.offset,
            CANCELLED.after,
        )


def paced(stride: int, elapsed: float) -> int:
    """Return how many records to run until the next look.

    Args:
        stride: How many were run since the last one, back to back.
        elapsed: Seconds that took.
    """
    in_time = int(stride * SHARE * YIELD_AFTER / elapsed) if elapsed else LAST_LOOK
    return max(1, min(in_time, 2 * stride, LAST_LOOK))
