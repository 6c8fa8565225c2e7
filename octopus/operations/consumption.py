"""Events of topics, chosen and handed out as they are read."""

import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from octopus.events import StoredRecord, TopicPartition
from octopus.operations.moments import Moment
from octopus.operations.partitions import partitions_of
from octopus.operations.progress import Advance, unseen
from octopus.operations.reading import Reader
from octopus.operations.records import is_match
from octopus.patterns import Pattern
from octopus.transports.base import Admin

COMMIT_INTERVAL = 1.0
"""Seconds between two commits of a reader that belongs to a group."""

Show = Callable[[TopicPartition, Sequence[StoredRecord]], object]
"""Takes chosen records of one partition, in their order."""


class Chosen(msgspec.Struct, frozen=True):
    """How many records were looked at.

    Attributes:
        shown: Records that were handed out.
        left_out: Records that did not match.
    """

    shown: int = 0
    left_out: int = 0


class Selection:
    """Chooses records, up to a number of them.

    Args:
        pattern: Only events that match; None for all.
        most: How many are wanted; None for all.

    Attributes:
        count: How many were chosen and left out up to now.
    """

    def __init__(self, pattern: Pattern | None = None, most: int | None = None) -> None:
        self.count = Chosen()
        self._pattern = pattern
        self._most = most

    @property
    def is_complete(self) -> bool:
        """Whether as many were chosen as are wanted."""
        return self.count.shown == self._most

    def choose(self, records: Sequence[StoredRecord]) -> tuple[list[StoredRecord], int]:
        """Return the records to show, and how many were looked at: not all where the selection is complete before."""
        chosen: list[StoredRecord] = []
        looked = 0
        wanted = None if self._most is None else self._most - self.count.shown
        for record in records:
            if len(chosen) == wanted:
                break
            looked += 1
            if is_match(self._pattern, record.value):
                chosen.append(record)
        self.count = Chosen(self.count.shown + len(chosen), self.count.left_out + looked - len(chosen))
        return chosen, looked


async def plan_consumption(
    admin: Admin, topics: Sequence[str], only: Collection[int], start: Moment, *, address: str
) -> list[TopicPartition]:
    """Return the partitions to read. `consume_events` reads them.

    Args:
        admin: Whom to ask.
        topics: What to read.
        only: Numbers of partitions; all when empty.
        start: Where to begin.
        address: Of the broker, for the sentence of an error.

    Raises:
        ConfigurationError: An offset is yet to come, and a date is probably meant.
        TopicNotFound: A topic, or a partition of it, does not exist; the sentence suggests one that does.
    """
    partitions = await partitions_of(admin, topics, only, address=address)
    await start.refuse_beyond(admin, partitions, reads=True)
    return partitions


async def consume_events(
    reader: Reader,
    selection: Selection,
    show: Show,
    *,
    commits: bool = False,
    clock: Callable[[], float] = time.monotonic,
    advance: Advance = unseen,
) -> Chosen:
    """Show the events that a reader reads, until its end or until enough were shown.

    Args:
        reader: Open.
        selection: Chooses events. It also tells how many were shown when this is cancelled.
        show: Takes them, a run of one partition at a time.
        commits: Whether the reader belongs to a group: then its position is stored regularly, and when it is closed.
        clock: Seconds, from any beginning.
        advance: Told how many more events were looked at.

    Raises:
        OperationFailed: A partition cannot be read on.
        TransportError: The broker does not answer, or refuses.
    """
    committed_at = clock()
    async for place, records in reader:
        chosen, looked = selection.choose(records)
        if chosen:
            show(place, chosen)
        advance(looked)
        if selection.is_complete:
            reader.note(place, records[looked - 1].offset + 1)
            break
        if commits and clock() - committed_at > COMMIT_INTERVAL:
            await reader.commit()
            committed_at = clock()
    return selection.count
