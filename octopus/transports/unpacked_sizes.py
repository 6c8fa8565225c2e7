"""How much a compressed payload can become, as its frames tell, without decompressing any of it.

Not the size that a frame announces, which may be a lie, but the most that its blocks can hold: a step for each block. By
Kafka's codec numbers. Sources: RFC 8878 (Zstandard), the LZ4 frame format 1.6.4, RFC 1952 (gzip).
"""

import struct
from collections.abc import Callable, Iterator

import cramjam

XERIAL_MAGIC = b"\x82SNAPPY\x00"
XERIAL_HEADER = 16

_INT32 = struct.Struct(">i")
_UINT32_LITTLE = struct.Struct("<I")

_ZSTD_MAGIC, _LZ4_MAGIC = 0xFD2FB528, 0x184D2204
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_ZSTD_BLOCK = 128 * 1024
_ZSTD_DICTIONARY_ID = (0, 1, 2, 4)
_ZSTD_CONTENT_SIZE = (0, 2, 4, 8)
_LZ4_BLOCK = {4: 64 * 1024, 5: 256 * 1024, 6: 1024 * 1024, 7: 4 * 1024 * 1024}
_LZ4_RATIO = 255  # a byte of a block stands for no more


def unpacked_size(codec: int, payload: bytes | memoryview) -> int | None:
    """Return the most bytes that a payload decompresses to; None when its frames cannot be understood.

    Exact for snappy. For gzip it is the size in its trailer, which only decompressing can prove.
    """
    size_of = _SIZES.get(codec)
    if size_of is None:
        return None
    try:
        return size_of(memoryview(payload))
    except (struct.error, ValueError, IndexError, KeyError, cramjam.DecompressionError):
        return None


def _gzip(payload: memoryview) -> int:
    (size,) = _UINT32_LITTLE.unpack_from(payload, len(payload) - 4)
    return int(size)


def _snappy(payload: memoryview) -> int:
    return sum(map(cramjam.snappy.decompress_raw_len, snappy_blocks(payload)))


def snappy_blocks(payload: memoryview) -> Iterator[memoryview]:
    """Yield the parts that are compressed by themselves: the whole, or the blocks of the Java library.

    Raises:
        struct.error: The last block's length is cut off.
        ValueError: A length leads out of the payload.
    """
    if payload[: len(XERIAL_MAGIC)] != XERIAL_MAGIC:
        yield payload
        return
    at = XERIAL_HEADER
    while at < len(payload):
        (length,) = _INT32.unpack_from(payload, at)
        at += _INT32.size
        if not 0 <= length <= len(payload) - at:
            raise ValueError("a snappy block is longer than the batch")
        yield payload[at : at + length]
        at += length


def _lz4(payload: memoryview) -> int:
    return _frames(payload, _LZ4_MAGIC, _lz4_frame)


def _lz4_frame(payload: memoryview, at: int) -> tuple[int, int]:
    flags, most = payload[at], _LZ4_BLOCK[payload[at + 1] >> 4 & 7]
    block_checksum, has_size, checksum, has_dictionary = flags & 16, flags & 8, flags & 4, flags & 1
    at += 2 + (8 if has_size else 0) + (4 if has_dictionary else 0) + 1
    size = 0
    while True:
        (length,) = _UINT32_LITTLE.unpack_from(payload, at)
        at += 4
        if not length:
            return size, at + (4 if checksum else 0)
        is_stored, length = length >> 31, length & 0x7FFFFFFF
        size += length if is_stored else min(most, _LZ4_RATIO * length)
        at += length + (4 if block_checksum else 0)


def _zstd(payload: memoryview) -> int:
    return _frames(payload, _ZSTD_MAGIC, _zstd_frame)


def _zstd_frame(payload: memoryview, at: int) -> tuple[int, int]:
    descriptor = payload[at]
    at += 1
    is_single, checksum = descriptor & 32, descriptor & 4
    most = _ZSTD_BLOCK
    if not is_single:
        window = payload[at]
        base = 1 << 10 + (window >> 3)
        most = min(most, base + base // 8 * (window & 7))
        at += 1
    at += _ZSTD_DICTIONARY_ID[descriptor & 3]
    width = _ZSTD_CONTENT_SIZE[descriptor >> 6] or (1 if is_single else 0)
    announced = int.from_bytes(payload[at : at + width], "little") + (256 if width == 2 else 0) if width else None
    at += width
    size = last = 0
    while not last:
        header = int.from_bytes(payload[at : at + 3], "little")
        at += 3
        if at > len(payload):
            raise ValueError("a block is cut off")
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        size += min(most, length) if kind < 2 else most  # stored, one byte repeated, compressed
        at += 1 if kind == 1 else length
    return size if announced is None else min(size, announced), at + (4 if checksum else 0)


def _frames(payload: memoryview, magic: int, frame: Callable[[memoryview, int], tuple[int, int]]) -> int:
    """Add up the frames of a payload, except frames that decompressors skip."""
    size = at = 0
    while at < len(payload):
        (found,) = _UINT32_LITTLE.unpack_from(payload, at)
        at += 4
        if found == magic:
            more, at = frame(payload, at)
            size += more
        elif found in _SKIPPABLE:
            at += 4 + _UINT32_LITTLE.unpack_from(payload, at)[0]
        else:
            raise ValueError("no frame begins here")
    return size


_SIZES: dict[int, Callable[[memoryview], int]] = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
