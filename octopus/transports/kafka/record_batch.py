"""Record batches (format 2, KIP-98) as a producer makes them: a value is copied once, and the checksum is taken by the processor.

Layout: https://kafka.apache.org/documentation/#recordbatch. aiokafka's compiled builder takes as long for a record, its checksum six
times as long, and it copies what it has written whenever it grows. Batches that are compressed are left to it.
"""

import struct
import time
from collections.abc import Sequence

from octopus.transports.checksum import crc32c

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CHECKED_FROM = 21  # attributes, and all behind them
_LENGTH_FROM = 12
_LEADER_EPOCH, _MAGIC = -1, 2
_TRANSACTIONAL = 0x10
_NONE = b"\x01"  # the length of what is null: -1
_RESERVE = 25  # bytes that lengths, attributes and deltas of a record take at most

Headers = Sequence[tuple[str, bytes | None]]


def _varint(value: int) -> bytes:
    """Return a number of up to 64 bits as zigzag and base 128: https://kafka.apache.org/protocol#protocol_types."""
    zigzag = (value << 1) ^ (value >> 63)
    written = bytearray()
    while zigzag > 0x7F:
        written.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    written.append(zigzag)
    return bytes(written)


_VARINTS = [_varint(number) for number in range(4096)]
_KNOWN = len(_VARINTS)
_ZERO = _VARINTS[0]


class RecordBatch:
    """A batch of one partition.

    Args:
        limit: Bytes that it may have; the first record is taken all the same.
        is_transactional: Whether its producer has transactions.

    Attributes:
        size: Bytes so far: exactly those of `encoded`.
    """

    __slots__ = (
        "_attributes",
        "_base",
        "_begun",
        "_begun_delta",
        "_count",
        "_encoded",
        "_headers",
        "_headers_encoded",
        "_latest",
        "_limit",
        "_parts",
        "_producer",
        "size",
    )

    def __init__(self, limit: int, *, is_transactional: bool) -> None:
        self._limit = limit
        self._attributes = _TRANSACTIONAL if is_transactional else 0
        self._begun = self._base = self._latest = int(time.time() * 1000)
        self._begun_delta = _ZERO
        self._count = 0
        self._parts: list[bytes] = [b""]
        self._headers: Headers = ()
        self._headers_encoded = b"\0"
        self._producer = (-1, -1, -1)
        self._encoded: bytearray | None = None
        self.size = _HEADER.size

    def append(
        self, delta: int, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Headers
    ) -> bool | None:
        """Add a record; return None, and add nothing, when the batch is full.

        Args:
            delta: How many records are before it.
            timestamp: Milliseconds since the epoch; None for when the batch was begun.
            key: Its key.
            value: Its value.
            headers: Its headers. The encoding of the last ones is kept: they repeat.
        """
        if headers != self._headers:
            self._headers, self._headers_encoded = headers, _encode_headers(headers)
        extra = self._headers_encoded
        length = len(extra) + (len(key) if key else 0) + (len(value) if value else 0)
        if self.size + length + _RESERVE > self._limit and self._count:
            return None
        if timestamp is None:
            timestamp_delta = self._begun_delta
            if timestamp_delta is not _ZERO:
                self._latest = max(self._latest, self._begun)
        else:
            if not self._count:
                self._base = self._latest = timestamp
                self._begun_delta = _varint(self._begun - timestamp)
            since = timestamp - self._base
            timestamp_delta = _VARINTS[since] if 0 <= since < _KNOWN else _varint(since)
            self._latest = max(self._latest, timestamp)
        offset_delta = _VARINTS[delta] if delta < _KNOWN else _varint(delta)
        if key is None:
            key_length, key = _NONE, b""
        else:
            key_length = _VARINTS[len(key)] if len(key) < _KNOWN else _varint(len(key))
        if value is None:
            value_length, value = _NONE, b""
        else:
            value_length = _VARINTS[len(value)] if len(value) < _KNOWN else _varint(len(value))
        length += 1 + len(timestamp_delta) + len(offset_delta) + len(key_length) + len(value_length)
        whole = _VARINTS[length] if length < _KNOWN else _varint(length)
        self._parts += (whole, b"\0", timestamp_delta, offset_delta, key_length, key, value_length, value, extra)
        self.size += length + len(whole)
        self._count += 1
        return True

    def begin_at(self, producer_id: int, epoch: int, sequence: int) -> None:
        """Number the records."""
        self._producer = (producer_id, epoch, sequence)

    def encoded(self) -> bytearray:
        """Return the batch; the same bytes each time."""
        if self._encoded is None:
            head = (self._attributes, self._count - 1, self._base, self._latest, *self._producer, self._count)
            self._parts[0] = _HEADER.pack(0, self.size - _LENGTH_FROM, _LEADER_EPOCH, _MAGIC, 0, *head)
            whole = bytearray().join(self._parts)
            self._parts = []
            struct.pack_into(">I", whole, _CHECKED_FROM - 4, crc32c(memoryview(whole)[_CHECKED_FROM:]))
            self._encoded = whole
        return self._encoded


def _encode_headers(headers: Headers) -> bytes:
    written = [_varint(len(headers))]
    for name, value in headers:
        encoded = name.encode()
        written += (_varint(len(encoded)), encoded)
        written += (_NONE,) if value is None else (_varint(len(value)), value)
    return b"".join(written)
