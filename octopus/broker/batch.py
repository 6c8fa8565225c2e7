"""Record batches, format 2: the header as stored, control batches, and the records inside.

The broker stores batches as they were sent. Only the base offset and the leader epoch are ever patched (both lie outside
the checksum), so the cost of carrying data is per batch. Records are decoded for two purposes alone: compaction and the
search for a timestamp. Format: https://kafka.apache.org/documentation/#recordbatch.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.codecs import LIMIT, NONE, Codecs, UnreadableBatch, compressed, decompressed, is_known

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = 61
LENGTH_OFFSET = 12  # the length field counts the bytes behind it
CHECKSUM_START = 21  # the checksum covers from the attributes to the end
MAXIMUM_SEQUENCE = 2**31 - 1
COORDINATOR_EPOCH = 0
"""Of the one transaction coordinator that there is; in every marker."""

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20

_GZIP_ONLY: Codecs = {}
_RUN = 256  # records that are looked at together
_CHECKSUM = struct.Struct(">I")
_PLACE = struct.Struct(">qiI")  # base offset, length, leader epoch


class Header(NamedTuple):
    """The 61 bytes in front of a batch's records; field names follow the format's."""

    base_offset: int
    length: int
    epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int  # type: ignore[assignment]  # the format's word; no code counts values in a header

    @property
    def size(self) -> int:
        """Bytes of the whole batch, header included."""
        return self.length + LENGTH_OFFSET

    @property
    def next_offset(self) -> int:
        """The offset after the batch; compaction may have left fewer records than offsets."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_offset(self) -> int:
        """The last offset the batch covers."""
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
        return self.attributes & CODEC_MASK

    @property
    def is_control(self) -> bool:
        """Whether this is a transaction marker."""
        return bool(self.attributes & CONTROL)

    @property
    def is_transactional(self) -> bool:
        """Whether a transaction decides about the records."""
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record; numbers wrap from 2147483647 to 0."""
        return (self.base_sequence + self.last_offset_delta) & MAXIMUM_SEQUENCE


class Record(NamedTuple):
    """One record of a batch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()


def read_header(data: bytes | memoryview, position: int = 0) -> Header:
    """Read the header at `position`.

    Raises:
        struct.error: If fewer than 61 bytes are there.
    """
    return Header._make(HEADER.unpack_from(data, position))


def end_of(batches: bytes | memoryview) -> int:
    """Return the offset after the last of some whole batches."""
    position = 0
    while True:
        header = read_header(batches, position)
        position += header.size
        if position >= len(batches):
            return header.next_offset


def checksum_of(batch: bytes | memoryview, checksum: Checksum = crc32c) -> int:
    """Compute the checksum of a whole batch; nothing is copied."""
    with memoryview(batch) as view:
        return checksum(view[CHECKSUM_START:])


def placed(header: Header, base_offset: int, epoch: int = 0) -> bytes:
    """Return the first 16 bytes of a batch as stored at `base_offset`; the rest stays as sent."""
    return _PLACE.pack(base_offset, header.length, epoch)


def stamped(batch: bytes | memoryview, now: int, checksum: Checksum = crc32c) -> bytes:
    """Return a copy of the batch whose records carry the time of appending, `now` in ms (`LogAppendTime`)."""
    copy = bytearray(batch)
    header = read_header(batch)
    struct.pack_into(">h", copy, 21, header.attributes | LOG_APPEND_TIME)
    struct.pack_into(">q", copy, 35, now)
    _CHECKSUM.pack_into(copy, 17, checksum_of(memoryview(copy), checksum))
    return bytes(copy)


def control_batch(kind: Literal["commit", "abort"], producer_id: int, producer_epoch: int, now: int) -> bytes:
    """Return the marker (78 bytes, one offset) that ends a producer's transaction; `now` in ms."""
    key = struct.pack(">hh", 0, 1 if kind == "commit" else 0)
    value = struct.pack(">hi", 0, COORDINATOR_EPOCH)
    return encode_batch(
        [Record(0, now, key, value)],
        attributes=CONTROL | TRANSACTIONAL,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
    )


def is_commit(marker: bytes | memoryview) -> bool:
    """Say whether a control batch commits its transaction; otherwise it aborts it."""
    key = next(decode_records(marker)).key
    return key is not None and key[2:4] == b"\x00\x01"


def encode_batch(
    records: Iterable[Record],
    *,
    attributes: int = 0,
    base_offset: int | None = None,
    last_offset: int | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    checksum: Checksum = crc32c,
    codecs: Codecs = _GZIP_ONLY,
) -> bytes:
    """Encode records, in offset order, as one batch.

    Args:
        base_offset: Where the batch starts; by default at its first record.
        last_offset: Last offset the batch covers, when records after it were removed.
        codecs: Compress; gzip is built in.

    Raises:
        UnreadableBatch: Nothing compresses with the codec that the attributes name.
    """
    records = list(records)
    first = records[0].offset if base_offset is None else base_offset
    last = records[-1].offset if last_offset is None else last_offset
    base_timestamp = records[0].timestamp if records else 0
    body = b"".join(_encode_record(record, first, base_timestamp) for record in records)
    body = compressed(attributes & CODEC_MASK, body, None, codecs)
    covered = struct.pack(
        ">hiqqqhii",
        attributes,
        last - first,
        base_timestamp,
        max((record.timestamp for record in records), default=-1),
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    covered += body
    return struct.pack(">qiibI", first, len(covered) + 9, 0, 2, checksum(covered)) + covered


def decode_records(batch: bytes | memoryview, limit: int = LIMIT, codecs: Codecs = _GZIP_ONLY) -> Iterator[Record]:
    """Yield the records of one whole batch.

    Args:
        batch: The batch, header included.
        limit: Most bytes the records may decompress to.
        codecs: Decompress; gzip is built in.

    Raises:
        UnreadableBatch: The codec is unknown, the limit is exceeded, or the framing is broken.
    """
    header = read_header(batch)
    body = bytes(memoryview(batch)[HEADER_BYTES : header.size])
    yield from decode_unpacked(header, decompressed(header.codec, body, limit, codecs))


def decode_unpacked(header: Header, records: bytes | memoryview) -> Iterator[Record]:
    """Yield the records of a batch from its decompressed bytes.

    Raises:
        UnreadableBatch: The framing is broken.
    """
    body, position = bytes(records), 0
    try:
        for _ in range(header.count):
            record, position = _decode_record(body, position, header)
            yield record
    except (IndexError, ValueError) as error:
        raise UnreadableBatch(f"the batch at offset {header.base_offset} cannot be decoded: {error}") from error


def unpacked(
    header: Header, batch: bytes | memoryview, limit: int = LIMIT, codecs: Codecs = _GZIP_ONLY
) -> bytes | memoryview | None:
    """Return the records of a whole batch, decompressed; None where nothing here decompresses its codec.

    Raises:
        UnreadableBatch: They cannot be decompressed, or to more than `limit` bytes.
    """
    body = memoryview(batch)[HEADER_BYTES : header.size]
    if header.codec == NONE:
        return body
    return decompressed(header.codec, bytes(body), limit, codecs) if is_known(header.codec, codecs) else None


def repacked(
    header: Header,
    batch: bytes | memoryview,
    records: bytes | memoryview,
    codec: int,
    level: int | None,
    codecs: Codecs,
    checksum: Checksum = crc32c,
) -> bytes:
    """Return the batch with its records, which are given decompressed, in another codec; all else stays.

    Raises:
        UnreadableBatch: Nothing here compresses with this codec.
    """
    body = compressed(codec, records, level, codecs)
    copy = bytearray(memoryview(batch)[:HEADER_BYTES])
    copy += body
    struct.pack_into(">i", copy, 8, len(copy) - LENGTH_OFFSET)
    struct.pack_into(">h", copy, 21, header.attributes & ~CODEC_MASK | codec)
    _CHECKSUM.pack_into(copy, 17, checksum_of(memoryview(copy), checksum))
    return bytes(copy)


def holds(records: bytes | memoryview, count: int) -> bool:
    """Say whether these are exactly `count` records, by their lengths alone.

    Records of a batch are often as long as the one before; runs of such are told by slices, much faster than one by one.
    """
    data = bytes(records)
    position, left, before = 0, count, 0
    try:
        while left > 0:
            length, start = _varint(data, position)
            if length < 0:
                return False
            stride, run = start - position + length, 1
            if stride == before:
                end = position + stride * min(left, _RUN)
                prefix = data[position:start]
                columns = [data[position + each : end : stride] for each in range(len(prefix))]
                run = min(
                    len(column) - len(column.lstrip(prefix[each : each + 1])) for each, column in enumerate(columns)
                )
            position, left, before = position + stride * run, left - run, stride
    except (IndexError, ValueError):
        return False
    return position == len(data)


def _decode_record(body: bytes, position: int, header: Header) -> tuple[Record, int]:
    length, position = _varint(body, position)
    end = position + length
    if length < 0 or end > len(body):
        raise IndexError(f"a record of {length} bytes does not fit")
    timestamp_delta, position = _varint(body, position + 1)
    offset_delta, position = _varint(body, position)
    key, position = _varbytes(body, position)
    value, position = _varbytes(body, position)
    count, position = _varint(body, position)
    headers = []
    for _ in range(count):
        name, position = _varbytes(body, position)
        content, position = _varbytes(body, position)
        headers.append((name or b"", content))
    if position != end:
        raise IndexError("a record's length does not match its fields")
    stamped_by_log = header.attributes & LOG_APPEND_TIME
    timestamp = header.max_timestamp if stamped_by_log else header.base_timestamp + timestamp_delta
    return Record(header.base_offset + offset_delta, timestamp, key, value, tuple(headers)), end


def _varbytes(body: bytes, position: int) -> tuple[bytes | None, int]:
    length, position = _varint(body, position)
    if length < 0:
        return None, position
    end = position + length
    if end > len(body):
        raise IndexError(f"{length} bytes do not fit")
    return body[position:end], end


def _varint(body: bytes | memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = body[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _encode_record(record: Record, base_offset: int, base_timestamp: int) -> bytes:
    parts = [
        b"\x00",
        _encode_varint(record.timestamp - base_timestamp),
        _encode_varint(record.offset - base_offset),
        _encode_varbytes(record.key),
        _encode_varbytes(record.value),
        _encode_varint(len(record.headers)),
    ]
    for name, content in record.headers:
        parts += [_encode_varbytes(name), _encode_varbytes(content)]
    body = b"".join(parts)
    return _encode_varint(len(body)) + body


def _encode_varbytes(content: bytes | None) -> bytes:
    return _encode_varint(-1) if content is None else _encode_varint(len(content)) + content


def _encode_varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
