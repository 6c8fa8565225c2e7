"""How far consumers may read a log, and the readers that wait for more. Pure.

Invariants, between any two steps:

- `end` does not go back, but where the log is recovered.
- A marker is in `_ending` from when it is appended until `end` is past it: until then its transaction is open for readers, and its
  first offset is before the marker.
- A waiter is called once, and forgotten then.
"""

from contextlib import suppress

from octopus import invariants
from octopus.broker.log.values import Waiter


@invariants.hold_after("begin_again", "note_marker", "show")
class Watermark:
    """The high watermark of one log.

    Attributes:
        end: One past the last record that consumers may see.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self._ending: dict[int, int] = {}  # offset of a marker not visible yet → first offset of its transaction
        self._waiters: list[Waiter] = []

    def begin_again(self, end: int) -> None:
        """Take the end of a log that was recovered; those that wait go on waiting."""
        self.end = end
        self._ending.clear()

    def note_marker(self, offset: int, first: int) -> None:
        """Note that a transaction that began at `first` ends with the marker at `offset`, which is not visible yet."""
        self._ending[offset] = first

    def stable(self, first_open: int) -> int:
        """Return the last stable offset, where `first_open` is the first offset of the oldest transaction without a marker."""
        return min(min(self._ending.values(), default=self.end), first_open)

    def show(self, end: int) -> None:
        """Let consumers see everything before `end`."""
        self.end = end
        for marker in [marker for marker in self._ending if marker < end]:
            del self._ending[marker]
        self.wake()

    def add_waiter(self, waiter: Waiter) -> None:
        """Have `waiter` called once at the next `show` or `wake`."""
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        """Forget a waiter; harmless when it was called already."""
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def wake(self) -> None:
        """Call everything that waits."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def check(self) -> None:
        """Assert the invariants."""
        assert all(marker >= self.end for marker in self._ending)
        assert all(first < marker for marker, first in self._ending.items())
