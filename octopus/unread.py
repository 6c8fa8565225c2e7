"""Records that are still the bytes they came in, and are read when their turn comes.

A record that is read long before it runs is written to memory and fetched from there again; one that is read by the two
hundred just before it runs never leaves the processor's cache. So a fetch may bring thousands of them without making each
more expensive, and waiting records take no more memory than their bytes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Protocol

from octopus.errors import TransportError
from octopus.events import StoredRecord

READ_AT_ONCE = 256
"""Records, when all of them are wanted."""


class UnreadBatch(Protocol):
    """A batch of which no record has been read. Its offsets are consecutive."""

    @property
    def records(self) -> Iterable[StoredRecord]:
        """Iterated once; raises, anything, when the bytes are no records after all."""
        ...

    @property
    def offsets(self) -> range:
        """The records' offsets, from the batch's header."""
        ...

    def alone(self) -> "UnreadBatch":
        """Return a copy that does not keep the frame of the batch."""
        ...


class Unread:
    """Consecutive records of one partition, each read once, in order.

    Args:
        batches: The batches of the records, each beginning where the one before ends.
        translate: Makes the error that names the unreadable record, from the offset and the exception.

    Attributes:
        offsets: Of the records that have not been read.
        error: Why they cannot be; None as long as they can.
        report: Hears of it, once; without one, iterating raises it.
    """

    __slots__ = ("_batch", "_batches", "_is_alone", "_records", "_translate", "error", "offsets", "report")

    def __init__(self, batches: Sequence[UnreadBatch], translate: Callable[[int, Exception], TransportError]) -> None:
        self.offsets = range(batches[0].offsets.start, batches[-1].offsets.stop)
        self.error: TransportError | None = None
        self.report: Callable[[TransportError], None] | None = None
        self._translate = translate
        self._batches = deque(batches)
        self._records: Iterator[StoredRecord] = iter(())
        self._is_alone = False
        self._batch = range(0)  # the rest of the batch that is being read

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[StoredRecord]:
        while self.offsets and self.error is None:
            yield from self.read(READ_AT_ONCE)
        if self.error is not None and self.report is None:
            raise self.error

    def read(self, limit: int) -> list[StoredRecord]:
        """Return the next records, up to `limit` of them; fewer at the end, and before one that cannot be read."""
        found: list[StoredRecord] = []
        try:
            while len(found) < limit and self.offsets and self.error is None:
                records = self._read(limit - len(found))
                found = found + records if found else records
        except Exception as error:  # noqa: BLE001 - the bytes are not ours, and fail in any way they like
            self.error = self._translate(self.offsets.start, error)
            if self.report is not None:
                self.report(self.error)
        return found

    def stand_alone(self) -> None:
        """Copy the rest, once, so that it does not keep its frame."""
        if self._is_alone:
            return
        self._is_alone = True
        try:
            rest = [*self._records]
        except Exception:  # noqa: BLE001 - told when they are wanted, and some are missing
            rest = []
        self._records = iter(rest)
        self._batches = deque([batch.alone() for batch in self._batches])

    def _read(self, limit: int) -> list[StoredRecord]:
        if not self._batch:
            batch = self._batches.popleft()
            self._batch = batch.offsets
            # Some may be asked for an iterator only once, and `islice` asks each time.
            self._records = chain(batch.records)
        expected = self._batch[:limit]
        records = list(islice(self._records, limit))
        if not records or (records[0].offset, records[-1].offset, len(records)) != (
            expected[0],
            expected[-1],
            len(expected),
        ):
            raise ValueError(f"a batch has not the records that its header tells of, which are {self._batch}")
        self._batch = self._batch[limit:]
        self.offsets = self.offsets[len(records) :]
        if not self._batch:
            self._records = iter(())
        return records


Records = Sequence[StoredRecord] | Unread
"""Consecutive records of a partition, read or not."""
