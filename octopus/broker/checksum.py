"""CRC-32C (Castagnoli), the checksum of record batches, without a compiled module.

A broker that carries much traffic injects a compiled function (any `Checksum`). This one keeps the broker free of third
parties, and is not slow: a long message is first folded with arithmetic on big integers, which the interpreter does in C.
"""

from collections.abc import Callable
from typing import TypeAlias

Checksum: TypeAlias = Callable[[bytes | memoryview], int]

# The generator divides x^5685 + x^1362 + x^426 + 1, the kind of multiple (four terms) that makes folding cheap, and with
# it every x^(5685 k) + x^(1362 k) + x^(426 k) + 1 where k is a power of two (squaring is linear over GF(2)). So the
# terms of highest degree may be replaced by three copies of themselves at lower degrees: three shifts and XORs remove
# about two fifths of the message. Found by search; the tests check that the generator divides it.
_DEGREE, _MIDDLE, _LOW = 5685, 1362, 426
_FOLDED_BYTES = 1024  # below this the table is as fast


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C of `data` (RFC 3720, appendix B.4); `crc32c(b"123456789") == 0xE3069283`."""
    crc = 0xFFFFFFFF
    if len(data) > _FOLDED_BYTES:
        data = _folded(data)
        crc = 0
    table = _TABLE
    for byte in bytes(data):
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _folded(data: bytes | memoryview) -> bytes:
    """Return a short message with the same remainder; the register's initial ones are already in it.

    The checksum is bit-reflected: as a little-endian integer, bit i of an n-bit message is the coefficient of
    x^(n-1-i). The lowest bits have the highest degrees, and lowering a degree by d is a shift to the left by d.
    """
    bits = len(data) * 8
    message = int.from_bytes(data, "little") ^ 0xFFFFFFFF
    scale = 1 << max(0, (bits // _DEGREE).bit_length() - 1)
    while scale:
        degree, middle, low = _DEGREE * scale, _MIDDLE * scale, _LOW * scale
        while bits > degree + 64:
            count = min(degree - middle, bits - degree) & ~7
            top = message & ((1 << count) - 1)
            message >>= count
            message ^= (top << (degree - middle - count)) ^ (top << (degree - low - count)) ^ (top << (degree - count))
            bits -= count
        scale >>= 1
    return message.to_bytes(bits // 8, "little")


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)


_TABLE = _table()
