"""Decompressors of record batches that never use more memory than allowed: 13 KB of zstd can hold 400 MiB.

By Kafka's codec numbers, as the broker takes them and the Kafka transport uses them. Their result is allocated once where
the frames tell how much there can be (`unpacked_sizes.py`).
"""

import contextlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import cramjam

from octopus.errors import BatchTooLarge, CorruptBatch
from octopus.transports.unpacked_sizes import snappy_blocks, unpacked_size


class Decompressor(Protocol):
    """Decompresses the records of one batch."""

    def __call__(self, payload: bytes | memoryview, limit: int, room: int = 0) -> bytearray:
        """Return the content of a payload.

        Args:
            payload: Compressed.
            limit: Most bytes that it may come to.
            room: Bytes to leave in front of them.

        Raises:
            CorruptBatch: It cannot be decompressed.
            BatchTooLarge: It comes to more.
        """
        ...


GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

_PART = 1024 * 1024  # of gzip, which is unpacked piece by piece: zlib would join the pieces, and so hold them twice
_PIECE = (
    16 * 1024
)  # of input at a time: zlib copies the rest behind each member, and a megabyte may be fifty thousand members
_LEAST = 65_536


def gunzip(payload: bytes | memoryview, limit: int, room: int = 0) -> bytearray:
    """Decompress gzip: all its members."""
    out = bytearray(room + min(limit, unpacked_size(GZIP, payload) or 0))
    end = room
    view, at = memoryview(payload), 0
    try:
        while True:
            stream = zlib.decompressobj(31)
            rest: Any = b""
            while not stream.eof:
                if not rest:
                    rest = view[at : at + _PIECE]
                    at += len(rest)
                part = stream.decompress(rest, min(_PART, limit - (end - room)) + 1)
                if end - room + len(part) > limit:
                    raise _too_large(limit)
                rest = stream.unconsumed_tail
                if not part and not rest and not stream.eof and at == len(view):
                    raise _corrupt("its gzip stream ends early")
                out[end : end + len(part)] = part
                end += len(part)
            at -= len(stream.unused_data)
            if bytes(view[at : at + 2]) != b"\x1f\x8b":  # any other bytes behind it belong to no member
                del out[end:]
                return out
    except zlib.error as error:
        raise _corrupt(error) from error


def unsnappy(payload: bytes | memoryview, limit: int, room: int = 0) -> bytearray:
    """Decompress raw snappy, or the blocks of the Java library. Lengths are added up before anything is unpacked."""
    try:
        whole = memoryview(payload)
        # Twice, as there may be so many blocks that a list of them takes more than the batch.
        size = sum(map(cramjam.snappy.decompress_raw_len, snappy_blocks(whole)))
        if size > limit:
            raise _too_large(limit)
        out = bytearray(room + size)
        view = memoryview(out)
        at = room
        for block in snappy_blocks(whole):
            if length := cramjam.snappy.decompress_raw_len(block):
                at += cramjam.snappy.decompress_raw_into(block, view[at : at + length])
    except (cramjam.DecompressionError, struct.error, ValueError) as error:
        raise _corrupt(error) from error
    else:
        return out


def unlz4(payload: bytes | memoryview, limit: int, room: int = 0) -> bytearray:
    """Decompress LZ4 frames."""
    return _into_growing(LZ4, cramjam.lz4.decompress_into, payload, limit, room)


def unzstd(payload: bytes | memoryview, limit: int, room: int = 0) -> bytearray:
    """Decompress Zstandard frames."""
    return _into_growing(ZSTD, cramjam.zstd.decompress_into, payload, limit, room)


def _into_growing(
    codec: int, decompress_into: Callable[[Any, Any], int], payload: bytes | memoryview, limit: int, room: int
) -> bytearray:
    """Decompress into as much as there can be; where that is not known, into buffers that grow, so that memory follows the data."""
    most = unpacked_size(codec, payload)
    size = min(limit, max(_LEAST, 4 * len(payload)) if most is None else most)
    while True:
        out = bytearray(room + size)
        try:
            with memoryview(out) as view:
                length = decompress_into(payload, view[room:])
        except cramjam.DecompressionError as error:
            if size < limit:  # it has one error for too little room and for data that are damaged
                size = min(limit, max(_LEAST, size * 4))
            elif not size or _was_filled(decompress_into, payload, out, room):
                raise _too_large(limit) from None
            else:
                raise _corrupt(error) from error
        else:
            del out[room + length :]
            return out


def _was_filled(
    decompress_into: Callable[[Any, Any], int], payload: bytes | memoryview, out: bytearray, room: int
) -> bool:
    """Tell whether decompressing, which failed, wrote to the very end of the zeroed buffer, and so ran out of room."""
    if out[-1]:
        return True
    out[-1] = 0xFF  # the last byte written may be a zero
    with contextlib.suppress(cramjam.DecompressionError):
        decompress_into(payload, memoryview(out)[room:])
    return not out[-1]


def _corrupt(reason: object) -> CorruptBatch:
    return CorruptBatch(f"The batch does not decompress: {reason}.")


def _too_large(limit: int) -> BatchTooLarge:
    return BatchTooLarge(
        f"The batch decompresses to more than {limit} bytes. Raise decompression_limit_bytes if that is meant."
    )


DECOMPRESSORS: dict[int, Decompressor] = {GZIP: gunzip, SNAPPY: unsnappy, LZ4: unlz4, ZSTD: unzstd}
