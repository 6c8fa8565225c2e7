"""How often a slot looks at the clock, when the loop has its turn, and how long claims may be. Pure: time comes as an argument.

Handlers that never suspend run back to back, without the loop. So a slot looks at the clock now and then, and lets the loop
have its turn (heartbeats, commits, fetches) when that is late. A look costs more than a quick handler, so they are rare
where handlers prove quick: the `stride` from one to the next is counted in records.

Invariants, between any two steps:

- `1 <= claim_limit <= LAST_LOOK`. It is 1 from when a claim suspended until one has not.
- Every stride is from 1 to `LAST_LOOK`.
- `awaited_since` is a time exactly while a turn of the loop is awaited: from `await_turn` until `have_turn`.
"""

from octopus import invariants

YIELD_AFTER = 0.005
"""Seconds a slot may run handlers that never suspend before the loop gets its turn (heartbeats, commits, fetches)."""

LAST_LOOK = 256
"""Most records between two looks at the clock; fewer until they prove quick. Also how many run back to back: what each
claim costs is nothing to a record of a long one."""

SHARE = 0.25
"""Of `YIELD_AFTER`, from look to look, when they prove slow: so much later than it should be the loop's turn may come."""

SMOOTHED = 4
"""Looks that `Pacing.seconds` is an average of, about."""


@invariants.hold_after("end_claim", "limit_to_one", "look", "await_turn", "have_turn")
class Pacing:
    """The pace of one runner, from how long its handlers take and whether they suspend.

    Attributes:
        claim_limit: How many records of free lanes run back to back, while handlers do not suspend.
        awaited_since: Since when a turn of the loop is awaited; None while none is.
        seconds: That a record took lately; 0 while that is not known, or handlers suspend.
    """

    __slots__ = ("_begun", "awaited_since", "claim_limit", "seconds")

    def __init__(self) -> None:
        self.claim_limit = 1
        self.awaited_since: float | None = None
        self.seconds = 0.0
        self._begun = 0  # claims, of all slots

    def begin_claim(self) -> int:
        """Note that a claim begins; return its number, for `end_claim`."""
        self._begun += 1
        return self._begun

    def end_claim(self, number: int) -> None:
        """Note that all records of a claim were done or skipped."""
        if self._begun != number:
            self.claim_limit = 1  # others ran meanwhile: it suspended
        elif self.claim_limit < LAST_LOOK:
            self.claim_limit *= 2

    def limit_to_one(self) -> None:
        """Note that a claim of several suspends."""
        self.claim_limit = 1

    def await_turn(self, now: float) -> bool:
        """Await the loop's turn from now on; return False where one is awaited already."""
        if self.awaited_since is not None:
            return False
        self.awaited_since = now
        return True

    def have_turn(self) -> None:
        """Note that the loop has its turn."""
        self.awaited_since = None

    def look(self, now: float, stride: int, looked: float) -> tuple[int, bool]:
        """Look at the clock after `stride` records.

        Args:
            now: The time.
            stride: How many records were run since the last look.
            looked: When that was.

        Returns:
            The stride to the next look, and whether it is late: others are to have their turn.
        """
        elapsed = now - looked
        if self.awaited_since is not None:
            is_late = now - self.awaited_since > YIELD_AFTER
            self.seconds += (elapsed / stride - self.seconds) / SMOOTHED
            return paced(stride, elapsed), is_late
        self.seconds = 0.0
        is_late = elapsed > YIELD_AFTER  # the loop had its turn, because handlers suspend
        return stride if is_late else min(2 * stride, LAST_LOOK), is_late

    def check(self) -> None:
        """Assert the invariants."""
        assert 1 <= self.claim_limit <= LAST_LOOK


def paced(stride: int, elapsed: float) -> int:
    """Return how many records to run until the next look.

    Args:
        stride: How many were run since the last one, back to back.
        elapsed: Seconds that took.
    """
    in_time = int(stride * SHARE * YIELD_AFTER / elapsed) if elapsed else LAST_LOOK
    return max(1, min(in_time, 2 * stride, LAST_LOOK))
