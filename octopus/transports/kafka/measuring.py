"""What records take in memory, and whether a batch holds one that would take too much, told before it is read."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from octopus.errors import BatchTooLarge
from octopus.events import StoredRecord
from octopus.transports.base import LARGE

RECORD_BYTES = 200
"""What an object for a record takes beside its key, value and headers."""

HEADER_BYTES = 150
"""What a header takes beside its name and value: two bytes of a batch can be one."""

HEADERS_COUNTED_FROM = 1024 * 1024
"""Bytes of a batch, or a record, from which its headers are counted before it is read; those of less cannot take much."""

_FIRST_RECORD = 61
_headers = attrgetter("headers")


class Measured(NamedTuple):
    """What records take.

    Attributes:
        size_bytes: All of them.
        large: Each that is far larger than others, by offset.
    """

    size_bytes: int
    large: dict[int, int]


def take(records: Iterable[StoredRecord], max_bytes: int) -> tuple[list[StoredRecord], Measured]:
    """Take records up to the one that makes them `max_bytes`, and measure them one by one."""
    taken: list[StoredRecord] = []
    total = 0
    large: dict[int, int] = {}
    for record in records:
        taken.append(record)
        size = RECORD_BYTES + len(record.value or b"") + len(record.key or b"")
        for name, value in record.headers:
            size += HEADER_BYTES + len(name) + len(value or b"")
        total += size
        if size >= LARGE:
            large[record.offset] = size
        if total >= max_bytes:
            break
    return taken, Measured(total, large)


def share(records: Sequence[StoredRecord], size_bytes: int) -> Measured:
    """Measure records of which none can be large, from their share of a batch's bytes."""
    headers = sum(map(len, map(_headers, records)))
    return Measured(size_bytes + RECORD_BYTES * len(records) + HEADER_BYTES * headers, {})


def check_headers(batch: memoryview, count: int, limit: int) -> None:
    """Refuse a batch with a record whose headers would take more than a batch may.

    Args:
        batch: Plain, with its header.
        count: Its records.
        limit: Bytes.

    Raises:
        BatchTooLarge: There is such a record.
        IndexError: The batch ends early.
    """
    if len(batch) < HEADERS_COUNTED_FROM:
        return
    at = _FIRST_RECORD
    for _ in range(count):
        length, at = _varint(batch, at)
        end = at + length
        if length >= HEADERS_COUNTED_FROM:
            _, at = _varint(batch, at + 1)  # behind the attributes: timestamp, offset, key, value
            _, at = _varint(batch, at)
            for _ in range(2):
                size, at = _varint(batch, at)
                at += max(size, 0)
            headers, _ = _varint(batch, at)
            if headers * HEADER_BYTES > limit:
                raise BatchTooLarge(
                    f"A record has {headers} headers, which would take more than {limit} bytes. "
                    "Raise decompression_limit_bytes if that is meant."
                )
        if length < 0:
            return  # its reader says so
        at = end


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    number = byte & 0x7F
    shift = 7
    while byte > 0x7F:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    return (number >> 1) ^ -(number & 1), at
