"""CRC-32C (Castagnoli), the checksum of record batches, without a compiled module.

A broker that carries real traffic injects a compiled function (any `Checksum`); this one keeps the broker free of
third parties, and is what control batches and tests use.
"""

from collections.abc import Callable
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
Checksum: TypeAlias = Callable[[bytes | memoryview], int]


def crc32c(data: Buffer) -> int:
    """Return the CRC-32C of `data` (RFC 3720, appendix B.4); `crc32c(b"123456789") == 0xE3069283`."""
    crc = 0xFFFFFFFF
    table = _TABLE
    for byte in bytes(data):
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)


_TABLE = _table()
