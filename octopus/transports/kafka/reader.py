"""Reads fetched batches without aiokafka's `ConsumerRecord`, the most expensive thing on the path of a record.

aiokafka's fetcher keeps a result per partition. It is taken from there at once and the position moved
past it, so that the fetcher already asks for what follows while this is being read. What was taken is handed on in chunks:
of whole batches that are read when their turn comes, where their headers say what is in them, else of aiokafka's own compiled
records. At most two fetched buffers per partition are held: the one being read, and the next. What is not asked for now is
copied, once: it would keep all of the frame that it came in.

A compressed batch is unpacked when its turn comes, into a plain one, and only if there is room for what it can become. What was
unpacked for partitions that are not asked for now is given up if others need the room.
"""

from collections import deque
from collections.abc import Collection
from functools import partial
from itertools import chain, islice
from typing import Any

from octopus.errors import BatchTooLarge, CorruptBatch, TransportError
from octopus.events import StoredRecord, TopicPartition
from octopus.transports.base import MAX_BYTES, Chunk
from octopus.transports.kafka.engine import PartitionRecords, is_abort
from octopus.transports.kafka.fetched import Batch
from octopus.unread import Unread

READ_COMMITTED = 1

UNPACKED = 16 * 1024 * 1024
"""Bytes of batches that are unpacked and not read to their end, of all partitions; a larger one is alone."""


class Buffer:
    """What one fetch brought for one partition, and how far it has been read.

    Args:
        partition: Where it is from.
        fetched: What a fetch brought.
        limit: Bytes that a batch may be decompressed to.

    Attributes:
        next_offset: Of the next record to hand out.
        error: Why the rest cannot be read.
        unpacked_bytes: What the batch takes that was unpacked to be read.
        is_waiting: Whether the next batch waits for room to be unpacked.
    """

    __slots__ = (
        "_aborted",
        "_aborted_producers",
        "_alone",
        "_batch",
        "_batches",
        "_committed_only",
        "_limit",
        "_packed",
        "_records",
        "error",
        "is_waiting",
        "next_offset",
        "partition",
        "unpacked_bytes",
        "until",
    )

    def __init__(self, partition: TopicPartition, fetched: PartitionRecords, limit: int) -> None:
        self.partition = partition
        self._limit = limit
        self.next_offset: int = fetched.next_fetch_offset
        self.error: TransportError | None = None
        self._committed_only = fetched.isolation_level == READ_COMMITTED
        self._aborted: deque[tuple[int, int]] = deque(fetched.aborted_transactions)
        self._aborted_producers: set[int] = set()
        self._alone = False
        self._batch: Any = None  # the first one
        self._records: Any = None  # an iterator over what is left of it, once it has been begun
        self._packed: Batch | None = None  # that batch as it was fetched, if it had to be unpacked
        self.unpacked_bytes = 0
        self.is_waiting = False
        self._batches: deque[Batch | Exception] = deque()
        try:
            while (batch := fetched.batches.next()) is not None:
                self._batches.append(batch)
        except Exception as error:  # noqa: BLE001 - the bytes are not ours; any failure to frame them is corruption
            self._batches.append(error)
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
            if self._packed is not None and self._packed is not self._batch:
                self._packed = self._packed.alone()  # what it was unpacked to is ours already
            elif self._batch is not None:
                self._batches.appendleft(self._batch.alone())
                self._leave()

    def read(
        self, limit: int, *, split: bool = True, max_bytes: int = MAX_BYTES, room: int | None = None
    ) -> Chunk | None:
        """Return up to `limit` records; None at the end.

        Args:
            limit: Records.
            split: Whether a batch of more than that may be read in parts. When not, None may mean that the next one is too long.
            max_bytes: None behind the record that makes them so many.
            room: Bytes that a batch may be unpacked to; None when there is room for any. If the next one needs more, `is_waiting`
                is set.

        An unreadable batch ends the buffer: `error` is set, and `next_offset` is the first offset that was not delivered.
        """
        start = self.next_offset
        self.is_waiting = False
        if whole := self._take_whole(limit, max_bytes):
            size = sum([len(batch.view) for batch in whole])
            return Chunk(self.partition, Unread(whole, partial(_corrupt, self.partition)), self.next_offset, size)
        if not split and self._batch is not None and self._records is None and self._batch.can_wait:
            return None
        found: list[StoredRecord] = []
        size = 0
        large: dict[int, int] = {}
        while len(found) < limit and size < max_bytes:
            if self._batch is None and not self._advance():
                break
            try:
                if self._records is None and not self._open(room):
                    break
                batch = self._batch
                wanted = limit - len(found)
                records, (more, those) = batch.take(islice(self._records, wanted), max_bytes - size)
            except Exception as error:  # noqa: BLE001 - see above
                self._fail(error)
                break
            if len(records) < wanted and more < max_bytes - size:
                # compaction may have removed the last records of a batch: its header knows where it ends
                self.next_offset = max(self.next_offset, batch.records.next_offset)
                self._leave()
            if records and records[0].offset < start:
                # the broker sends whole batches, also from before the position
                records = [record for record in records if record.offset >= start]
            if records:
                self.next_offset = max(self.next_offset, records[-1].offset + 1)
                size += more
                large |= those
                found = found + records if found else records
        if self.next_offset == start and not found:
            return None
        return Chunk(self.partition, found, self.next_offset, size, large)

    def pack(self) -> None:
        """Give up what the batch that is being read was unpacked to; reading on unpacks it again."""
        if self._packed is not None:
            packed = self._packed.alone()  # also because one that aiokafka unpacks can be read only once
            self._leave()
            self._batch = packed

    def _open(self, room: int | None) -> bool:
        """Begin to read the first batch, unpacked; return False when it has to wait for room."""
        batch = self._batch
        if batch.codec:
            limit = self._limit
            size = batch.unpacked_size(limit)
            if room is not None and size > room:
                self.is_waiting = True
                return False
            try:
                plain = batch.unpacked(size)
            except BatchTooLarge:
                if size == limit:
                    raise
                # what the end of a gzip stream says is no proof
                if room is not None and limit > room:
                    self.is_waiting = True
                    return False
                plain = batch.unpacked(limit)
            self._packed, self._batch = batch, plain
            self.unpacked_bytes = len(plain.view)
        # a batch may be asked for an iterator only once, and `islice` would ask for one each time
        self._records = chain(self._batch.records)
        return True

    def _leave(self) -> None:
        self._batch = self._records = self._packed = None
        self.unpacked_bytes = 0

    def _take_whole(self, limit: int, max_bytes: int) -> list[Batch]:
        """Take consecutive batches that need not be read to know what is in them."""
        taken: list[Batch] = []
        while (self._batch is not None or self._advance()) and self._records is None:
            batch = self._batch
            if not batch.can_wait:
                break
            offsets = batch.offsets
            limit -= len(offsets)
            if limit < 0 or max_bytes <= 0 or offsets.start != (taken[-1].offsets.stop if taken else self.next_offset):
                break
            taken.append(batch)
            max_bytes -= len(batch.view)
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
        """Follow the transactions up to this batch, as aiokafka's `PartitionRecords` does."""
        if not self._committed_only or batch.producer_id is None:
            return False
        while self._aborted and self._aborted[0][1] <= batch.base_offset:
            self._aborted_producers.add(self._aborted.popleft()[0])
        if batch.is_control_batch and is_abort(batch):
            self._aborted_producers.discard(batch.producer_id)
        return bool(batch.is_transactional and batch.producer_id in self._aborted_producers)

    def _fail(self, error: Exception) -> None:
        self._batches.clear()
        self._leave()
        self.error = _corrupt(self.partition, self.next_offset, error)


def read_among(
    others: Collection[Buffer],
    buffer: Buffer,
    wanted: Collection[TopicPartition],
    max_records: int,
    max_bytes: int,
    *,
    split: bool,
) -> Chunk | None:
    """Read on in a buffer, as `Buffer.read`, if there is room for what its next batch unpacks to.

    What others have unpacked and is not asked for now is given up for it. One by itself always has room.
    """
    while True:
        held = sum([other.unpacked_bytes for other in others])
        chunk = buffer.read(max_records, split=split, max_bytes=max_bytes, room=UNPACKED - held if held else None)
        idle = [other for other in others if other.unpacked_bytes and other.partition not in wanted]
        if chunk is not None or not buffer.is_waiting or not idle:
            return chunk
        for other in idle:
            other.pack()


def _corrupt(partition: TopicPartition, offset: int, error: Exception) -> TransportError:
    kind = type(error) if isinstance(error, TransportError) else CorruptBatch
    reason = str(error) or type(error).__name__
    ours = kind(f"{partition}@{offset} cannot be read: {reason.rstrip('.')}.")
    ours.__cause__ = error
    return ours
