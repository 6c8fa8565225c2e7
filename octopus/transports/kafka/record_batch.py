"""Record batches (format 2, KIP-98) as a producer makes them: a small value is copied once and a large one never, and the checksum is
taken by the processor.

Layout: https://kafka.apache.org/documentation/#recordbatch. aiokafka's compiled builder takes as long for a record, its checksum six
times as long, and it copies what it has written whenever it grows. Batches that are compressed are left to it.
"""

import struct
import time
from collections.abc import Sequence

from octopus.transports.checksum import crc32c_of_pieces

APART = 16 * 1024
"""Bytes from which a value is a piece by itself, as it was given: to copy it would take longer than one more piece for the socket."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CHECKED_FROM = 21  # attributes, and all behind them
_LENGTH_FROM = 12
_LEADER_EPOCH, _MAGIC = -1, 2
_TRANSACTIONAL = 0x10
_NONE = b"\x01"  # the length of what is null: -1
_VALUE_AT = 6  # among the parts of a record
_RESERVE = 25  # bytes that lengths, attributes and deltas of a record take at most

Headers = Sequence[tuple[str, bytes | None]]


Pieces = tuple[bytes, ...]
"""A batch as it goes to a socket, one piece after the other."""


def pieces_of(batch: Pieces | bytes) -> Pieces:
    """Return the pieces of a batch of ours; one of aiokafka's is a piece by itself."""
    return batch if isinstance(batch, tuple) else (batch,)


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
_ATTRIBUTES = b"\0"
_AT_BASE = _ATTRIBUTES + _VARINTS[0]  # the attributes of a record, and a time that is its batch's


class RecordBatch:
    """A batch of one partition.

    Args:
        limit: Bytes that it may have; the first record is taken all the same.
        is_transactional: Whether its producer has transactions.

    Attributes:
        size: Bytes so far: exactly those of `encoded`, all pieces together.
    """

    __slots__ = (
        "_attributes",
        "_base",
        "_begun",
        "_begun_stamp",
        "_count",
        "_encoded",
        "_headers",
        "_headers_encoded",
        "_large",
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
        self._begun_stamp = _AT_BASE
        self._count = 0
        self._parts: list[bytes] = []
        self._large: list[int] = []  # where among the parts there is a value of `APART` or more
        self._headers: Headers = ()
        self._headers_encoded = b"\0"
        self._producer = (-1, -1, -1)
        self._encoded: Pieces | None = None
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
        if headers is not self._headers and headers != self._headers:
            self._headers, self._headers_encoded = headers, _encode_headers(headers)
        extra = self._headers_encoded
        if key is None:
            key_size, key_length, key = 0, _NONE, b""
        else:
            key_size = len(key)
            key_length = _VARINTS[key_size] if key_size < _KNOWN else _varint(key_size)
        if value is None:
            value_size, value_length, value = 0, _NONE, b""
        else:
            value_size = len(value)
            value_length = _VARINTS[value_size] if value_size < _KNOWN else _varint(value_size)
        length = len(extra) + key_size + value_size
        if self.size + length + _RESERVE > self._limit and self._count:
            return None
        if timestamp is None:
            stamp = self._begun_stamp
            if stamp is not _AT_BASE:
                self._latest = max(self._latest, self._begun)
        else:
            if not self._count:
                self._begun_stamp = _ATTRIBUTES + _varint(self._begun - timestamp)
                self._base = self._latest = timestamp
            since = timestamp - self._base
            stamp = _ATTRIBUTES + (_VARINTS[since] if 0 <= since < _KNOWN else _varint(since))
            self._latest = max(self._latest, timestamp)
        offset_delta = _VARINTS[delta] if delta < _KNOWN else _varint(delta)
        if value_size >= APART:
            self._large.append(len(self._parts) + _VALUE_AT)
        length += len(stamp) + len(offset_delta) + len(key_length) + len(value_length)
        whole = _VARINTS[length] if length < _KNOWN else _varint(length)
        self._parts += (whole, stamp, offset_delta, key_length, key, value_length, value, extra)
        self.size += length + len(whole)
        self._count += 1
        return True

    def begin_at(self, producer_id: int, epoch: int, sequence: int) -> None:
        """Number the records."""
        self._producer = (producer_id, epoch, sequence)

    def encoded(self) -> Pieces:
        """Return the batch; the same pieces each time."""
        if self._encoded is None:
            body = self._body()
            fields = (self._attributes, self._count - 1, self._base, self._latest, *self._producer, self._count)
            head = _HEADER.pack(0, self.size - _LENGTH_FROM, _LEADER_EPOCH, _MAGIC, 0, *fields)
            checksum = crc32c_of_pieces((head[_CHECKED_FROM:], *body))
            head = head[: _CHECKED_FROM - 4] + checksum.to_bytes(4, "big") + head[_CHECKED_FROM:]
            self._encoded = (head, *body)
            self._parts = []
        return self._encoded

    def _body(self) -> list[bytes]:
        """Return the records: large values as they are, what is between them joined."""
        parts, start = self._parts, 0
        pieces: list[bytes] = []
        for at in self._large:
            pieces += (b"".join(parts[start:at]), parts[at])
            start = at + 1
        pieces.append(b"".join(parts[start:] if start else parts))
        return pieces


def _encode_headers(headers: Headers) -> bytes:
    written = [_varint(len(headers))]
    for name, value in headers:
        encoded = name.encode()
        written += (_varint(len(encoded)), encoded)
        written += (_NONE,) if value is None else (_varint(len(value)), value)
    return b"".join(written)
