"""How many records to take at once, and of which partitions: back-pressure, and no more turns than handlers need."""

from collections.abc import Callable

from octopus.config import WorkerSettings
from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.runner import Assignment

FETCH_RECORDS, MOST_RECORDS = 1000, 4000
"""Records taken at once, at first and while handlers prove quick. To ask costs the same for any number; but what one partition
sends at once the others wait for."""

FINISHED = 5
"""So many times `worker.in_flight_records` may be in flight, when all others are finished and only their outputs are on their way. These
take up neither lanes nor caches; with fewer, handlers would wait for acknowledgements on a fast machine, and far from the broker."""

QUICK_TURN = 0.01
"""Seconds: when the records of a turn were handled in less, the next one takes twice as many."""

EXHAUSTED = 1.375
"""Of what may be in flight, in bytes: then no partition gets any more. Only records that are large for their partitions' shares, which
are never cut, come to so much."""

MAX_AHEAD = 100_000
"""Records settled behind an open one before their partition waits; about 10 MB of ledger."""


class Intake:
    """Keeps what is in flight within its limits, and the partitions' shares of it fair. Looks at busy partitions only.

    Args:
        settings: The limits.
        batch: Records in a batch, if handlers take batches.
        is_full: Whether an assignment has no room for another reason.
        flush_batch: Called with each assignment that has no room: nothing more comes for now.
        published: Returns the bytes of outputs that are not acknowledged: they take the same room.
        now: In loop time.

    Attributes:
        ready: Partitions to ask for.
        unreadable: Those that cannot be read on, and why.
        busy: Assignments that may have records in flight.
        is_exhausted: Whether there is no room for any partition, not even for a little.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        batch: int | None,
        *,
        is_full: Callable[[Assignment], bool],
        flush_batch: Callable[[Assignment], None],
        published: Callable[[], int] = lambda: 0,
        now: float,
    ) -> None:
        self.ready: set[TopicPartition] = set()
        self.unreadable: dict[TopicPartition, TransportError] = {}
        self.busy: set[Assignment] = set()
        self.is_exhausted = False
        self._open: set[TopicPartition] = set()
        self._most_unfinished, self._most_bytes = settings.in_flight_records, settings.in_flight_bytes
        self._most_records = FINISHED * settings.in_flight_records
        self._most_waiting = max(FETCH_RECORDS, batch or 0)
        self._is_full = is_full
        self._flush_batch = flush_batch
        self._published = published
        self._crowded = self._throttled = False  # half of what may be in flight is, all of it is
        self._turn = FETCH_RECORDS
        self._turn_at = now

    def open(self, partition: TopicPartition) -> None:
        """Begin to ask for a partition."""
        self._open.add(partition)
        self.ready.add(partition)

    def close(self, partition: TopicPartition, assignment: Assignment | None) -> None:
        """Forget a partition."""
        self._open.discard(partition)
        self.ready.discard(partition)
        self.unreadable.pop(partition, None)
        if assignment is not None:
            self.busy.discard(assignment)

    def refuse(self, partition: TopicPartition, error: TransportError) -> None:
        """Ask no more for a partition that cannot be read on."""
        self.ready.discard(partition)
        self.unreadable[partition] = error

    def end_turn(self, now: float, *, is_quick: bool) -> None:
        """Note that records came.

        Args:
            now: In loop time.
            is_quick: Whether those before them were run back to back. What suspends is read long before it is done, and more of it
                would be cold.
        """
        is_quick = is_quick and now - self._turn_at < QUICK_TURN
        self._turn = min(2 * self._turn, MOST_RECORDS) if is_quick else FETCH_RECORDS
        self._turn_at = now

    def balance(self) -> None:
        """Ask for partitions that have room, and leave alone those that do not.

        The first half of what may be in flight goes to the partitions that come first, the second in equal shares: so a partition that
        hangs takes no more than its share of it. And when all is taken, partitions that hold nothing of it still get a
        little: the others go on, however many hang.
        """
        held = [(assignment, assignment.written.in_flight, assignment.weigh()) for assignment in self.busy]
        records = sum([count for _, count, _ in held])
        unfinished = records - sum([assignment.unacknowledged.finished for assignment, _, _ in held])
        size = sum([weight for _, _, weight in held]) + self._published()
        self.is_exhausted = size > EXHAUSTED * self._most_bytes
        fullest = max(records / self._most_records, unfinished / self._most_unfinished, size / self._most_bytes)
        self._crowded, throttled = fullest > 0.5, fullest > 1.0
        if throttled != self._throttled:
            self._throttled = throttled
            self.ready.update(self._open - self.unreadable.keys())
        for assignment, count, weight in held:
            is_idle = not count
            has_room = is_idle if throttled else not self._has_enough(assignment, count, weight)
            if not has_room:
                self.ready.discard(assignment.partition)
                self._flush_batch(assignment)
            elif assignment.partition not in self.unreadable:
                self.ready.add(assignment.partition)
            if is_idle and has_room:
                self.busy.discard(assignment)

    @property
    def held(self) -> int:
        """How many partitions have no room."""
        return len(self._open) - len(self.ready) - len(self.unreadable)

    @property
    def idle(self) -> set[TopicPartition]:
        """Partitions to ask for of which nothing is in flight."""
        return self.ready - {assignment.partition for assignment in self.busy}

    @property
    def records(self) -> int:
        """How many records to take at once: less when a full turn would be much of what may be in flight."""
        shares = 2 * len(self._open) if self._throttled and self._open else 4
        return max(1, min(self._turn, self._most_unfinished // shares))

    @property
    def bytes(self) -> int:
        """How many bytes to take at once, decompressed: an eighth of what may be in flight or, when all is taken, a share of a quarter."""
        shares = 4 * len(self._open) if self._throttled and self._open else 8
        return max(1, self._most_bytes // shares)

    def _has_enough(self, assignment: Assignment, in_flight: int, weight: float) -> bool:
        if (
            assignment.lanes.waiting > self._most_waiting
            or assignment.written.ahead > MAX_AHEAD
            or self._is_full(assignment)
        ):
            return True
        if not self._crowded:
            return False
        shares, unfinished = 2 * len(self._open), in_flight - assignment.unacknowledged.finished
        return (
            in_flight * shares > self._most_records
            or unfinished * shares > self._most_unfinished
            or weight * shares > self._most_bytes
        )
