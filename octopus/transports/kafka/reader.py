"""Reads fetched batches without aiokafka's `ConsumerRecord`, the most expensive thing on the path of a record.

aiokafka's fetcher puts a `FetchResult` per partition into `_records`. It is taken from there at once and the position moved
past it, so that the fetcher already asks for what follows while this is being read. What was taken is handed on in chunks:
of whole batches that are read when their turn comes, where their headers say what is in them, else of aiokafka's own compiled
records. At most two fetched buffers per partition are held: the one being read, and the next. What nobody wants for now is
copied, once: it would keep all of the frame that it came in.
"""

from collections import deque
from functools import partial
from itertools import chain, islice
from typing import Any

from aiokafka.record.control_record import ABORT_MARKER, ControlRecord

from octopus.errors import CorruptBatch, TransportError
from octopus.events import StoredRecord, TopicPartition
from octopus.transports.base import Chunk
from octopus.transports.kafka.fetched import Batch
from octopus.unread import Unread

READ_COMMITTED = 1


class Buffer:
    """What one fetch brought for one partition, and how far it has been read.

    Args:
        partition: Where it is from.
        fetched: aiokafka's `PartitionRecords`, not iterated yet.
    """

    __slots__ = (
        "_aborted",
        "_aborted_producers",
        "_alone",
        "_batch",
        "_batches",
        "_committed_only",
        "_records",
        "error",
        "next_offset",
        "partition",
        "until",
    )

    def __init__(self, partition: TopicPartition, fetched: Any) -> None:
        self.partition = partition
        self.next_offset: int = fetched.next_fetch_offset
        self.error: TransportError | None = None
        self._committed_only = fetched._isolation_level == READ_COMMITTED
        self._aborted: deque[tuple[int, int]] = deque(fetched._aborted_transactions)
        self._aborted_producers: set[int] = set()
        self._alone = False
        self._batch: Any = None  # the first one
        self._records: Any = None  # an iterator over what is left of it, once it has been begun
        self._batches: deque[Batch | Exception] = deque()
        try:
            while (batch := fetched._records.next()) is not None:
                self._batches.append(batch)
        except Exception as error:  # noqa: BLE001 - the bytes are not ours; any failure to frame them is corruption
            self._batches.append(error)
        # it and the generator in it hold each other: until a garbage collection they would keep what was fetched
        fetched._records_iterator = None
        whole = [batch for batch in self._batches if isinstance(batch, Batch)]
        self.until: int = max(self.next_offset, whole[-1].records.next_offset) if whole else self.next_offset
        """Where the fetcher goes on."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to read."""
        return self._batch is None and not self._batches

    def stand_alone(self) -> None:
        """Copy what is left, so that it does not keep the frame that it came in."""
        if not self._alone:
            self._alone = True
            self._batches = deque([batch.alone() if isinstance(batch, Batch) else batch for batch in self._batches])
            if self._batch is not None:
                self._batches.appendleft(self._batch.alone())
                self._batch = self._records = None

    def read(self, limit: int, *, split: bool = True) -> Chunk | None:
        """Return up to `limit` records; None at the end.

        Args:
            limit: Records.
            split: Whether a batch of more than that may be read in parts. When not, None may mean that the next one is too long.

        An unreadable batch ends the buffer: `error` is set, and `next_offset` is the first offset that was not delivered.
        """
        start = self.next_offset
        if whole := self._take_whole(limit):
            size = sum([len(batch.view) for batch in whole])
            return Chunk(self.partition, Unread(whole, partial(_corrupt, self.partition)), self.next_offset, size)
        if not split and self._batch is not None and self._records is None and self._batch.can_wait:
            return None
        found: list[StoredRecord] = []
        size = 0
        while len(found) < limit:
            if self._batch is None and not self._advance():
                break
            batch = self._batch
            if self._records is None:
                # a batch may be asked for an iterator only once, and `islice` would ask for one each time
                self._records = chain(batch.records)
            wanted = limit - len(found)
            try:
                records: list[Any] = list(islice(self._records, wanted))
            except Exception as error:  # noqa: BLE001 - see above
                self._fail(error)
                break
            if len(records) < wanted:
                # compaction may have removed the last records of a batch: its header knows where it ends
                self.next_offset = max(self.next_offset, batch.records.next_offset)
                self._batch = self._records = None
            if records and records[0].offset < start:
                # the broker sends whole batches, also from before the position
                records = [record for record in records if record.offset >= start]
            if records:
                self.next_offset = max(self.next_offset, records[-1].offset + 1)
                size += batch.size_of(records)
                found = found + records if found else records
        if self.next_offset == start and not found:
            return None
        return Chunk(self.partition, found, self.next_offset, size)

    def _take_whole(self, limit: int) -> list[Batch]:
        """Take consecutive batches that need not be read to know what is in them."""
        taken: list[Batch] = []
        while (self._batch is not None or self._advance()) and self._records is None:
            batch = self._batch
            if not batch.can_wait:
                break
            offsets = batch.offsets
            limit -= len(offsets)
            if limit < 0 or offsets.start != (taken[-1].offsets.stop if taken else self.next_offset):
                break
            taken.append(batch)
            self.next_offset, self._batch = offsets.stop, None
        return taken

    def _advance(self) -> bool:
        """Move to the next batch that holds records for us; False at the end."""
        while self._batches:
            batch = self._batches.popleft()
            if isinstance(batch, Exception):
                self._fail(batch)
                return False
            try:
                if not batch.is_whole:
                    self._fail(CorruptBatch("its checksum does not match"))
                    return False
                skipped = self._is_aborted(batch.records) or batch.records.is_control_batch
            except Exception as error:  # noqa: BLE001 - see above
                self._fail(error)
                return False
            if not skipped:
                self._batch = batch
                return True
            self.next_offset = batch.records.next_offset
        return False

    def _is_aborted(self, batch: Any) -> bool:
        """Follow the transactions up to this batch, as aiokafka's `PartitionRecords._unpack_records` does."""
        if not self._committed_only or batch.producer_id is None:
            return False
        while self._aborted and self._aborted[0][1] <= batch.base_offset:
            self._aborted_producers.add(self._aborted.popleft()[0])
        if batch.is_control_batch and ControlRecord.parse(next(batch).key) == ABORT_MARKER:
            self._aborted_producers.discard(batch.producer_id)
        return bool(batch.is_transactional and batch.producer_id in self._aborted_producers)

    def _fail(self, error: Exception) -> None:
        self._batches.clear()
        self._batch = self._records = None
        self.error = _corrupt(self.partition, self.next_offset, error)


def _corrupt(partition: TopicPartition, offset: int, error: Exception) -> TransportError:
    kind = type(error) if isinstance(error, TransportError) else CorruptBatch
    reason = str(error) or type(error).__name__
    ours = kind(f"{partition}@{offset} cannot be read: {reason.rstrip('.')}.")
    ours.__cause__ = error
    return ours
