"""A slot, as others see it."""

import asyncio

from octopus.claim import Claim
from octopus.logs import get_logger
from octopus.outcomes import Retry
from octopus.runner.assignment import Assignment

logger = get_logger("octopus.handlers")

CANCELLED = Retry(1.0)
"""The outcome of a record whose task was cancelled from outside, unless that was made a failure."""


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
        """Tell the slot's task to end, also if its handler swallows the cancellation."""
        self.is_told = True
        task.cancel()

    def is_to_end(self) -> bool:
        """Tell whether its task, which was cancelled, is to end: it was told so, or the cancellation meant all tasks."""
        return self.is_told or (self._owner is not None and self._owner.cancelling() > 0)

    def say_cancelled(self) -> None:
        """Log that its task was cancelled from outside."""
        logger.warning(
            "the task that runs %s@%d was cancelled from outside; the event runs again in %g s",
            self.assignment and self.assignment.partition,
            self.claim.current.offset,
            CANCELLED.after,
        )
