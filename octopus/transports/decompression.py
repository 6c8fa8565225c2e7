"""Decompressors of record batches that never use more memory than allowed: 13 KB of zstd can hold 400 MiB.

By Kafka's codec numbers, as the broker takes them and the Kafka transport installs them in its engine.
"""

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cramjam

from octopus.errors import BatchTooLarge, CorruptBatch

Decompressor = Callable[[bytes, int], bytes]

_XERIAL_MAGIC = b"\x82SNAPPY\x00"


def gunzip(payload: bytes, limit: int) -> bytes:
    """Decompress gzip. Raises `CorruptBatch`, `BatchTooLarge`."""
    stream = zlib.decompressobj(31)
    try:
        out = stream.decompress(payload, limit + 1)
    except zlib.error as error:
        raise _corrupt(error) from error
    if len(out) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise _corrupt("its gzip stream ends early")
    return out


def unsnappy(payload: bytes, limit: int) -> bytes:
    """Decompress raw snappy, or the blocks of the Java library. Lengths are added up before anything is unpacked."""
    try:
        blocks = list(_snappy_blocks(bytes(payload)))
        if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > limit:
            raise _too_large(limit)
        return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)
    except (cramjam.DecompressionError, struct.error, ValueError) as error:
        raise _corrupt(error) from error


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_XERIAL_MAGIC):
        yield data
        return
    position = 16
    while position < len(data):
        (length,) = struct.unpack_from("!i", data, position)
        position += 4
        if not 0 <= length <= len(data) - position:
            raise ValueError("a snappy block is longer than the batch")
        yield data[position : position + length]
        position += length


def unlz4(payload: bytes, limit: int) -> bytes:
    """Decompress an LZ4 frame."""
    return _into_growing(cramjam.lz4.decompress_into, payload, limit)


def unzstd(payload: bytes, limit: int) -> bytes:
    """Decompress a Zstandard frame."""
    return _into_growing(cramjam.zstd.decompress_into, payload, limit)


def _into_growing(decompress_into: Callable[[Any, bytearray], int], payload: bytes, limit: int) -> bytes:
    """Decompress into buffers that grow, so that memory follows the data; the sizes that frames announce are not trusted."""
    size = min(limit, max(65_536, 4 * len(payload)))
    while True:
        out = bytearray(size)
        try:
            length = decompress_into(payload, out)
        except cramjam.DecompressionError as error:
            if size < limit:  # it has one error for too little room and for data that are damaged
                size = min(limit, size * 4)
            elif _was_filled(decompress_into, payload, out):
                raise _too_large(limit) from None
            else:
                raise _corrupt(error) from error
        else:
            del out[length:]
            return bytes(out)


def _was_filled(decompress_into: Callable[[Any, bytearray], int], payload: bytes, out: bytearray) -> bool:
    """Tell whether decompressing, which failed, wrote to the very end of what had been zeros, and so ran out of room."""
    if not out or out[-1]:
        return True
    out[-1] = 0xFF  # what it writes there may be a zero
    with contextlib.suppress(cramjam.DecompressionError):
        decompress_into(payload, out)
    return not out[-1]


def _corrupt(reason: object) -> CorruptBatch:
    return CorruptBatch(f"The batch does not decompress: {reason}.")


def _too_large(limit: int) -> BatchTooLarge:
    return BatchTooLarge(
        f"The batch decompresses to more than {limit} bytes. Raise decompression_limit_bytes if that is meant."
    )


DECOMPRESSORS: dict[int, Decompressor] = {1: gunzip, 2: unsnappy, 3: unlz4, 4: unzstd}
