"""A lane task, as others see it, and how often it looks at the clock."""

from octopus.runner.generation import Generation
from octopus.types import Stretch

YIELD_AFTER = 0.005
"""Seconds a lane may run handlers that never suspend before the loop gets its turn (heartbeats, commits, fetches)."""

LAST_LOOK = 256
"""Most records between two looks at the clock; fewer until they prove quick. Also how many run back to back: what each
stretch costs is nothing to a record of a long one."""

SHARE = 0.25
"""Of `YIELD_AFTER`, from look to look, when they prove slow: so much later than it should be the loop's turn may come."""


class Lane:
    """What one lane task is doing, for those who drain or watch.

    Attributes:
        generation: Whose records it runs; None while it has none.
        stretch: Those records.
        serial: A number that changes from stretch to stretch.
    """

    __slots__ = ("generation", "serial", "stretch")

    def __init__(self) -> None:
        self.generation: Generation | None = None
        self.stretch = Stretch(())
        self.serial = 0


def paced(stride: int, elapsed: float) -> int:
    """Return how many records to run until the next look.

    Args:
        stride: How many were run since the last one, back to back.
        elapsed: Seconds that took.
    """
    in_time = int(stride * SHARE * YIELD_AFTER / elapsed) if elapsed else LAST_LOOK
    return max(1, min(in_time, 2 * stride, LAST_LOOK))
