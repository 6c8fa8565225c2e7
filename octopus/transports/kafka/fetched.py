"""Reads answers to Fetch where they are: what is handed on are views of the frame, not copies of it.

Source: the Fetch response of Kafka's protocol guide, versions 4 to 11 and 13, and record batches as in KIP-98.
"""

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import aiokafka.errors as kafka

from octopus.events import StoredRecord
from octopus.transports.base import LARGE
from octopus.transports.checksum import crc32c
from octopus.transports.decompression import DECOMPRESSORS
from octopus.transports.kafka import legacy
from octopus.transports.kafka.compact import after_tags, bytes_at, length_at
from octopus.transports.kafka.engine import DefaultRecordBatch, LegacyRecordBatch
from octopus.transports.kafka.measuring import Measured, check_headers, share, take
from octopus.transports.unpacked_sizes import unpacked_size

API_KEY = 1
VERSIONS = (*range(4, 12), 13)
COMPACT = 12
"""The first version in the compact encoding."""

_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")
_HEAD = struct.Struct(">ihqq")  # partition, error code, high watermark, last stable offset
_INT64 = struct.Struct(">q")
_ABORTED = struct.Struct(">qq")

_BATCH = struct.Struct(">qi")  # base offset, length of what follows
_LENGTH_AT, _MAGIC_AT, _CHECKSUM_AT, _CHECKED_FROM, _ATTRIBUTES_AT, _COUNT_AT, _RECORDS_AT = 8, 16, 17, 21, 22, 57, 61
_OLD_ATTRIBUTES_AT = 17
_SHORTEST = {0: 26, 1: 34, 2: 61}  # bytes, by magic: a batch's header, or the smallest message of the time before
_CODEC_MASK = 0x07


def read_answer(kind: Any, frame: bytes | memoryview) -> Any:
    """Read a Fetch response behind its header.

    Args:
        kind: aiokafka's class for the version, one of `VERSIONS`, or ours; an object of it is returned.
        frame: Correlation id and response.

    Raises:
        struct.error: The frame is too short for what it says.
        ValueError: A name is not UTF-8, or a length leads out of the frame.
    """
    view = memoryview(frame)
    version = kind.API_VERSION
    if version >= COMPACT:
        return _read_compact(kind, view)
    (throttle_time,) = _INT32.unpack_from(view, 4)
    at = 8
    session: tuple[int, ...] = ()
    if version >= 7:
        session = _INT16.unpack_from(view, at) + _INT32.unpack_from(view, at + 2)
        at += 6
    topics = []
    count, at = _count(view, at)
    for _ in range(count):
        (length,) = _INT16.unpack_from(view, at)
        if length < 0:
            raise ValueError("a topic has no name")
        at += 2 + length
        name = str(view[at - length : at], "utf-8")
        partitions = []
        inner, at = _count(view, at)
        for _ in range(inner):
            partition, at = _partition(view, at, version)
            partitions.append(partition)
        topics.append((name, partitions))
    return kind(throttle_time, *session, topics)


def throttle_time(version: int, frame: bytes | memoryview) -> int:
    """Return for how many milliseconds a Fetch response asks its reader to wait."""
    view = memoryview(frame)
    milliseconds: int = _INT32.unpack_from(view, after_tags(view, 4) if version >= COMPACT else 4)[0]
    return milliseconds


def _partition(view: memoryview, at: int, version: int) -> tuple[tuple[Any, ...], int]:
    """Return the fields in the order of aiokafka's schema, and where they end."""
    fields: tuple[Any, ...] = _HEAD.unpack_from(view, at)
    at += _HEAD.size
    if version >= 5:
        fields += _INT64.unpack_from(view, at)  # the log's start
        at += 8
    count, at = _count(view, at)
    aborted = [_ABORTED.unpack_from(view, at + 16 * index) for index in range(count)]
    at += 16 * len(aborted)
    fields += (aborted,)
    if version >= 11:
        fields += _INT32.unpack_from(view, at)  # the replica to read from
        at += 4
    length, at = _count(view, at)
    if length > len(view) - at:
        raise ValueError(f"a partition says that it has {length} bytes, of {len(view) - at} that are left")
    records = view[at : at + length]
    return (*fields, records), at + length


def _read_compact(kind: Any, view: memoryview) -> Any:
    """Read an answer in the compact encoding. Topics are named by their ids, as bytes."""
    at = after_tags(view, 4)
    (throttle_time,) = _INT32.unpack_from(view, at)
    session = _INT16.unpack_from(view, at + 4) + _INT32.unpack_from(view, at + 6)
    topics = []
    count, at = length_at(view, at + 10)
    for _ in range(count):
        topic_id = bytes(bytes_at(view, at, 16))
        partitions = []
        inner, at = length_at(view, at + 16)
        for _ in range(inner):
            partition, at = _compact_partition(view, at)
            partitions.append(partition)
        topics.append((topic_id, partitions))
        at = after_tags(view, at)
    return kind(throttle_time, *session, topics)


def _compact_partition(view: memoryview, at: int) -> tuple[tuple[Any, ...], int]:
    """Return the fields of `_partition`, and where they end."""
    fields = (*_HEAD.unpack_from(view, at), *_INT64.unpack_from(view, at + _HEAD.size))
    count, at = length_at(view, at + _HEAD.size + 8)
    aborted = []
    for _ in range(count):
        aborted.append(_ABORTED.unpack_from(view, at))
        at = after_tags(view, at + 16)
    (replica,) = _INT32.unpack_from(view, at)
    length, at = length_at(view, at + 4)
    records = bytes_at(view, at, length)
    return (*fields, aborted, replica, records), after_tags(view, at + length)


def _count(view: memoryview, at: int) -> tuple[int, int]:
    """Return a length, none (-1) being 0, and what follows it."""
    (count,) = _INT32.unpack_from(view, at)
    return max(count, 0), at + 4


class Batch(NamedTuple):
    """A record batch where it lies.

    Attributes:
        records: aiokafka's compiled reader for it, or for the messages that were in it.
        view: Its bytes.
    """

    records: Any
    view: memoryview

    @property
    def is_whole(self) -> bool:
        """Whether its checksum is right."""
        if self.view[_MAGIC_AT] < 2:
            return bool(self.records.validate_crc())
        return crc32c(self.view[_CHECKED_FROM:]) == int.from_bytes(self.view[_CHECKSUM_AT:_CHECKED_FROM], "big")

    def alone(self) -> "Batch":
        """Return a copy of a batch whose reading has not begun; it does not keep the frame that the batch came in."""
        return batch_at(memoryview(bytes(self.view)))

    @property
    def offsets(self) -> range:
        """Its records' offsets, if they are all there."""
        return range(self.records.base_offset, self.records.next_offset)

    @property
    def can_wait(self) -> bool:
        """Whether its header tells what is in it, so that its records need not be read to know: none is missing or compressed."""
        return self.view[_MAGIC_AT] >= 2 and not self.codec and 0 < self.record_count == len(self.offsets)

    @property
    def record_count(self) -> int:
        """How many records its header says that it has."""
        count: int = _INT32.unpack_from(self.view, _COUNT_AT)[0]
        return count

    @property
    def codec(self) -> int:
        """Kafka's number of how it is compressed; 0 when it is not."""
        view = self.view
        return (view[_ATTRIBUTES_AT] if view[_MAGIC_AT] >= 2 else view[_OLD_ATTRIBUTES_AT]) & _CODEC_MASK

    def unpacked_size(self, limit: int) -> int:
        """Return how much it is at most when it is decompressed; `limit` when that cannot be told, or is more."""
        view = self.view
        size = unpacked_size(self.codec, view[_RECORDS_AT:] if view[_MAGIC_AT] >= 2 else legacy.payload_of(view))
        return limit if size is None else min(size, limit)

    def unpacked(self, limit: int) -> "Batch":
        """Return the same batch without compression.

        Raises:
            UnsupportedCodecError: Its compression is unknown.
            CorruptBatch: It does not decompress.
            CorruptRecordException: It is one of the time before batches, and there are no messages in it.
            BatchTooLarge: It, or one record's headers, would take more than `limit` bytes.
        """
        view, codec = self.view, self.codec
        if view[_MAGIC_AT] < 2:
            return Batch(*legacy.unpacked(view, limit))
        if codec not in DECOMPRESSORS:
            raise kafka.UnsupportedCodecError(f"there is no compression {codec}")
        out = DECOMPRESSORS[codec](view[_RECORDS_AT:], limit, _RECORDS_AT)
        out[:_RECORDS_AT] = view[:_RECORDS_AT]
        out[_ATTRIBUTES_AT] &= ~_CODEC_MASK & 0xFF
        _INT32.pack_into(out, _LENGTH_AT, len(out) - _BATCH.size)
        check_headers(memoryview(out), self.record_count, limit)
        return batch_at(memoryview(out))

    def take(self, records: Iterable[StoredRecord], max_bytes: int) -> tuple[list[StoredRecord], Measured]:
        """Take what comes of its records up to the one that makes them `max_bytes`, and say what they take.

        Where none can be large, all of them are taken and have their share of the batch.
        """
        view = self.view
        if view[_MAGIC_AT] < 2 or self.codec or len(view) >= LARGE:
            return take(records, max_bytes)
        taken = list(records)
        return taken, share(taken, len(view) * len(taken) // max(self.record_count, 1))


class FetchedBatches:
    """The batches of one partition of an answer. Does for aiokafka's fetcher what its `MemoryRecords` does.

    A last batch that is cut off, as brokers may send it, is as good as not there.
    """

    __slots__ = ("_at", "_end", "_view")

    def __init__(self, data: bytes | memoryview | None) -> None:
        self._view = memoryview(data or b"")
        self._at = self._end = 0
        self._find()

    def size_in_bytes(self) -> int:
        """Return the size of everything."""
        return len(self._view)

    def has_next(self) -> bool:
        """Tell whether there is another whole batch."""
        return self._end > self._at

    def next_batch(self) -> Any:
        """Return aiokafka's reader for the next batch, or None. Raises `CorruptRecordException`."""
        batch = self.next()
        return batch.records if batch is not None else None

    def next(self) -> Batch | None:
        """Return the next batch, or None at the end.

        Raises:
            CorruptRecordException: It is shorter than its own header.
        """
        if not self.has_next():
            return None
        batch = batch_at(self._view[self._at : self._end])
        self._at = self._end
        self._find()
        return batch

    def stand_alone(self) -> None:
        """Copy what is left, so that it does not keep the frame that it came in."""
        if isinstance(self._view.obj, bytes):
            return
        self._view = memoryview(bytes(self._view[self._at :]))
        self._end -= self._at
        self._at = 0

    def _find(self) -> None:
        if len(self._view) - self._at < _BATCH.size:
            return
        _, length = _BATCH.unpack_from(self._view, self._at)
        end = self._at + _BATCH.size + max(length, 0)
        if end <= len(self._view):
            self._end = end


def batch_at(view: memoryview) -> Batch:
    """Return a reader for the batch, or message, that a view holds. Raises `CorruptRecordException`."""
    magic = view[_MAGIC_AT] if len(view) > _MAGIC_AT else 0
    if len(view) < _SHORTEST.get(magic, 61):
        raise kafka.CorruptRecordException(f"a batch of {len(view)} bytes is shorter than its header")
    try:
        return Batch(DefaultRecordBatch(view) if magic >= 2 else LegacyRecordBatch(view, magic), view)
    except Exception as error:  # lengths inside that lie; the compiled readers raise even SystemError
        raise kafka.CorruptRecordException(f"a batch cannot be read: {error}") from error
