"""A segment: a run of batches in one file, with a sparse index of where they begin."""

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from octopus.broker.batch import HEADER_BYTES, LENGTH_OFFSET, Header, read_header
from octopus.broker.codes import BrokerError, Code
from octopus.broker.faults import Faults
from octopus.broker.files import LogFile, replace_file
from octopus.logs import get_logger

GROUP_BYTES = 4096
"""An index entry stands for a group: neighbouring batches of at most so many bytes in all, or one larger batch.

So a million small batches cost as little memory as the bytes they hold, and finding one in its group is a short walk."""

_CHUNK_BYTES = 2**20
_INDEX = struct.Struct(">4sIqqqqqqqI")
_INDEX_MAGIC = b"OIDX"
_INDEX_VERSION = 1
_PLACE = struct.Struct(">qi11xi")  # base offset, length, last offset delta

_log = get_logger(__name__)


class Segment:
    """Batches from `base_offset` on.

    Attributes:
        base_offset: Names the file; the first batch may begin later (compaction).
        next_offset: The offset after the last batch.
        file: The bytes.
        size: How many.
        max_timestamp: Largest record time, ms; -1 for none.
        created: When the first batch was appended, ms since the epoch.
        modified: When the last batch was appended, ms since the epoch.
        sealed: Whether it never changes again, and it and the producer states at its end are durable.
    """

    def __init__(self, base_offset: int, file: LogFile, *, now: int, load: Callable[[], bytes] | None = None) -> None:
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.file = file
        self.size = 0
        self.max_timestamp = -1
        self.created = now
        self.modified = now
        self.sealed = False
        self._load = load
        self._bases = array("q")
        self._positions = array("q")
        self._latest = array("q")  # running maximum of the record times up to the group's end

    def append(self, parts: Sequence[bytes | memoryview], header: Header, now: int) -> None:
        """Write a batch at the end; its header has its final offset.

        Raises:
            OSError: The disk refused; the segment is as before.
        """
        self.load()
        self.file.write(parts, self.size)
        if not self.size:
            self.created = now
        self.modified = now
        self.note(header)

    def note(self, header: Header) -> None:
        """Take the batch that lies at the end of the known bytes into the index."""
        self.max_timestamp = max(self.max_timestamp, header.max_timestamp)
        if not self._positions or self.size + header.size - self._positions[-1] > GROUP_BYTES:
            self._bases.append(header.base_offset)
            self._positions.append(self.size)
            self._latest.append(self.max_timestamp)
        else:
            self._latest[-1] = self.max_timestamp
        self.size += header.size
        self.next_offset = header.next_offset

    def read(self, offset: int, limit: int, max_bytes: int, *, at_least_one: bool) -> tuple[bytes | memoryview, bool]:
        """Read the batches that reach `offset` or more and begin below `limit`.

        Returns:
            The bytes, and whether more may follow in the next segment.

        Raises:
            BrokerError: 56: the bytes cannot be read, or are not batches.
        """
        self.load()
        index = max(0, bisect_right(self._bases, offset) - 1)
        end = bisect_left(self._bases, limit)
        while index < end:
            start = self._positions[index]
            after = bisect_right(self._positions, start + max_bytes, index + 1) - 1
            if after == len(self._positions) - 1 and self.size <= start + max_bytes:
                after += 1
            after = min(max(after, index + 1), end)
            data = self._bytes(start, self._position(after))
            first = _skip(data, offset)
            if first < len(data):
                last_group = self._positions[after - 1] - start
                whole = after < len(self._bases) and self._bases[after] <= limit and len(data) - first <= max_bytes
                whole = whole or (
                    self.next_offset <= limit and after == len(self._bases) and len(data) - first <= max_bytes
                )
                last = len(data) if whole else _cut(data, first, max(first, last_group), limit, max_bytes, at_least_one)
                complete = start + last == self.size
                return (data if last - first == len(data) else memoryview(data)[first:last]), complete
            index = after  # `offset` lies in a gap that compaction left
        return b"", self.next_offset <= limit

    def groups_since(self, timestamp: int) -> Iterator[bytes]:
        """Yield groups of batches, from the first that has a record at or after a time (ms) on."""
        self.load()
        for index in range(bisect_left(self._latest, timestamp), len(self._latest)):
            yield self._bytes(self._positions[index], self._position(index + 1))

    def headers(self, offset: int = 0) -> Iterator[Header]:
        """Yield the headers of the batches that begin at `offset` or later."""
        for header, _ in self.batches(offset, bodies=False):
            yield header

    def batches(self, offset: int = 0, *, bodies: bool = True) -> Iterator[tuple[Header, bytes]]:
        """Yield (header, whole batch) of the batches that begin at `offset` or later; without bodies, the header's bytes."""
        self.load()
        index = max(0, bisect_right(self._bases, offset) - 1)
        position = self._positions[index] if self._positions else 0
        chunk, begin = b"", 0
        while position < self.size:
            if position + HEADER_BYTES > begin + len(chunk):
                chunk, begin = self._bytes(position, min(position + _CHUNK_BYTES, self.size)), position
            header = read_header(chunk, position - begin)
            _check_size(header.size)
            needed = header.size if bodies else HEADER_BYTES
            if position + needed > begin + len(chunk):
                chunk, begin = self._bytes(position, min(position + max(needed, _CHUNK_BYTES), self.size)), position
            if header.base_offset >= offset:
                yield header, chunk[position - begin : position - begin + needed]
            position += header.size

    def shorten(self, offset: int) -> None:
        """Forget the batches that begin at `offset` or later; the file keeps them.

        Raises:
            BrokerError: 56: the file cannot be read.
        """
        self.load()
        group = bisect_left(self._bases, offset) - 1
        kept = []
        if group >= 0:
            for header in self.headers(self._bases[group]):
                if header.base_offset >= offset:
                    break
                kept.append(header)
            self.size = self._positions[group]
            for column in (self._bases, self._positions, self._latest):
                del column[group:]
            self.max_timestamp = self._latest[-1] if self._latest else -1
        else:
            self._forget()
        for header in kept:
            self.note(header)

    def truncate(self, offset: int) -> None:
        """Cut off the batches that begin at `offset` or later.

        Raises:
            BrokerError: 56: the file cannot be read.
            OSError: The disk refused; the batches are forgotten all the same.
        """
        self.shorten(offset)
        self.file.truncate(self.size)

    def write_index(self, path: Path, faults: Faults) -> None:
        """Write the index, so that the next start need not read the segment.

        Raises:
            OSError: It is not written; the next start will scan.
        """
        self.load()
        body = b"".join(entries.tobytes() for entries in (self._bases, self._positions, self._latest))
        times = self.max_timestamp, self.created, self.modified
        head = _INDEX.pack(
            _INDEX_MAGIC,
            _INDEX_VERSION,
            self.base_offset,
            self.next_offset,
            self.size,
            *times,
            len(self._bases),
            zlib.crc32(body),
        )
        # Not synced: an index that a power cut tore fails its checksums, and is made again by a scan.
        replace_file(path, [head, struct.pack(">I", zlib.crc32(head)), body], faults, durable=False)

    def read_index(self, path: Path, size: int) -> bool:
        """Take over the index file if it fits a segment of `size` bytes; its entries load when needed."""
        try:
            with path.open("rb") as file:
                head = file.read(_INDEX.size)
                check = file.read(4)
        except OSError:
            return False
        if len(head) < _INDEX.size or check != struct.pack(">I", zlib.crc32(head)):
            return False
        magic, version, base, following, indexed, latest, created, modified, count, body = _INDEX.unpack(head)
        if (magic, version, base, indexed) != (_INDEX_MAGIC, _INDEX_VERSION, self.base_offset, size):
            return False
        self.next_offset, self.size, self.max_timestamp = following, size, latest
        self.created, self.modified = created, modified

        def load() -> bytes:
            entries = path.read_bytes()[_INDEX.size + 4 :]
            if len(entries) != 24 * count or zlib.crc32(entries) != body:
                raise ValueError(f"the index {path.name} is damaged")
            return entries

        self._load = load
        return True

    def load(self) -> None:
        """Have the index in memory; every other method sees to it by itself."""
        if self._load is None:
            return
        load, self._load = self._load, None
        size = self.size
        try:
            entries = load()
            third = len(entries) // 3
            for number, column in enumerate((self._bases, self._positions, self._latest)):
                column.frombytes(entries[number * third : (number + 1) * third])
        except (OSError, ValueError) as error:
            _log.warning("rebuilding the index of the segment at offset %d: %s", self.base_offset, error)
            self._forget()
            position = 0
            while position < size:
                header = read_header(self._bytes(position, position + HEADER_BYTES))
                _check_size(header.size)
                self.note(header)
                position += header.size

    def _forget(self) -> None:
        self.size, self.next_offset, self.max_timestamp, self._load = 0, self.base_offset, -1, None
        self._bases, self._positions, self._latest = array("q"), array("q"), array("q")

    def _position(self, group: int) -> int:
        return self._positions[group] if group < len(self._positions) else self.size

    def _bytes(self, start: int, end: int) -> bytes:
        try:
            data = self.file.read(start, end - start)
        except OSError as error:
            raise BrokerError(Code.KAFKA_STORAGE_ERROR, f"The log cannot be read: {error}.") from error
        if len(data) < end - start:
            raise BrokerError(
                Code.KAFKA_STORAGE_ERROR, f"The segment at offset {self.base_offset} was cut by another program."
            )
        return data


def _skip(data: bytes, offset: int) -> int:
    """Return where the first batch begins that reaches `offset`."""
    position = 0
    while position < len(data):
        base, length, delta = _PLACE.unpack_from(data, position)
        if base + delta >= offset:
            break
        _check_size(length + LENGTH_OFFSET)
        position += int(length) + LENGTH_OFFSET
    return position


def _cut(data: bytes, first: int, position: int, limit: int, max_bytes: int, at_least_one: bool) -> int:
    """Return where the last batch ends that begins below the offset `limit` and fits `max_bytes` counted from `first`."""
    while position < len(data):
        base, length, _ = _PLACE.unpack_from(data, position)
        size = length + LENGTH_OFFSET
        _check_size(size)
        if base >= limit or (position + size - first > max_bytes and not (at_least_one and position == first)):
            break
        position += size
    return position


def _check_size(size: int) -> None:
    if size < HEADER_BYTES:
        raise BrokerError(Code.KAFKA_STORAGE_ERROR, f"The log holds a batch of {size} bytes: the file was altered.")
