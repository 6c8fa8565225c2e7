"""Compressed messages of the time before batches (magic 0 and 1): unpacked here, since aiokafka knows no limit when it does so.

A compressed message has others as its value. Source: https://kafka.apache.org/documentation/#messageset, and KIP-31, KIP-32.
"""

import struct
from collections.abc import Iterator
from typing import Any

import aiokafka.errors as kafka

from octopus.events import StoredRecord
from octopus.transports.decompression import DECOMPRESSORS, GZIP, LZ4, SNAPPY
from octopus.transports.kafka.engine import LegacyRecordBatch

_MAGIC_AT, _ATTRIBUTES_AT, _TIMESTAMP_AT = 16, 17, 18
_KEY_AT = {0: 18, 1: 26}
_CODEC_MASK, _APPEND_TIME = 0x07, 0x08
_CODECS = {0: (GZIP, SNAPPY), 1: (GZIP, SNAPPY, LZ4)}  # LZ4's framing was broken in the oldest format (KAFKA-3160)
_SHORTEST = {0: 26, 1: 34}

_INT32, _INT64 = struct.Struct(">i"), struct.Struct(">q")
_FRAME = struct.Struct(">qi")  # offset, length of what follows


class Messages:
    """Plain messages, one behind the other.

    Args:
        view: Their bytes.
        magic: Which format they have.
        next_offset: Behind the last.
    """

    __slots__ = ("_magic", "_view", "next_offset")

    def __init__(self, view: memoryview, magic: int, next_offset: int) -> None:
        self._view = view
        self._magic = magic
        self.next_offset = next_offset

    def __iter__(self) -> Iterator[StoredRecord]:
        for at, end in _frames(self._view, self._magic):
            message: Any = LegacyRecordBatch(self._view[at:end], self._magic)
            yield from message


def payload_of(view: memoryview) -> memoryview:
    """Return what a compressed message has as its value. Raises `CorruptRecordException` when there is none."""
    at = _KEY_AT[view[_MAGIC_AT]]
    for _ in range(2):
        if at + _INT32.size > len(view):
            raise kafka.CorruptRecordException("a compressed message ends early")
        (length,) = _INT32.unpack_from(view, at)
        at += _INT32.size
        begin, at = at, at + max(length, 0)
    if length < 0 or at > len(view):
        raise kafka.CorruptRecordException("a compressed message has no value, or not all of it")
    return view[begin:at]


def unpacked(view: memoryview, limit: int) -> tuple[Messages, memoryview]:
    """Return what is in a compressed message, with the offsets and times that its records have, and its bytes.

    Raises:
        UnsupportedCodecError: Its format has no such compression.
        CorruptBatch: It does not decompress.
        CorruptRecordException: There are no messages in it.
        BatchTooLarge: They would take more than `limit` bytes.
    """
    magic, attributes = view[_MAGIC_AT], view[_ATTRIBUTES_AT]
    codec = attributes & _CODEC_MASK
    if codec not in _CODECS[magic]:
        raise kafka.UnsupportedCodecError(f"messages of format {magic} have no compression {codec}")
    out = memoryview(DECOMPRESSORS[codec](payload_of(view), limit))
    frames = list(_frames(out, magic))
    if not frames:
        raise kafka.CorruptRecordException("a compressed message is empty")
    (offset,) = _INT64.unpack_from(view)
    (last,) = _INT64.unpack_from(out, frames[-1][0])
    base = offset - last if magic else -1  # offsets inside count from the first (KIP-31), or were given by old brokers
    for at, _ in frames:
        if base >= 0:
            (inside,) = _INT64.unpack_from(out, at)
            _INT64.pack_into(out, at, base + inside)
        if magic:
            out[at + _ATTRIBUTES_AT] = attributes & _APPEND_TIME
            if attributes & _APPEND_TIME:  # of the broker, for all of them (KIP-32)
                out[at + _TIMESTAMP_AT : at + _TIMESTAMP_AT + 8] = view[_TIMESTAMP_AT : _TIMESTAMP_AT + 8]
    return Messages(out, magic, offset + 1), out


def _frames(view: memoryview, magic: int) -> Iterator[tuple[int, int]]:
    """Yield where messages begin and end. Raises `CorruptRecordException` at the first that cannot be one."""
    at = 0
    while at < len(view):
        end = at + _FRAME.size + (_FRAME.unpack_from(view, at)[1] if at + _FRAME.size <= len(view) else len(view))
        if end - at < _SHORTEST[magic] or end > len(view) or view[at + _ATTRIBUTES_AT] & _CODEC_MASK:
            raise kafka.CorruptRecordException("what is in a compressed message are no plain messages")
        yield at, end
        at = end
