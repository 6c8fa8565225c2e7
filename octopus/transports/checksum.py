"""CRC-32C, as fast as the processor has it: the checksum of record batches (KIP-98)."""

import google_crc32c

PIECE = 64 * 1024
"""Bytes copied at a time: the library takes nothing but bytes objects, and a copy this small stays in the cache."""


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes."""
    view = memoryview(data)
    value = 0
    for start in range(0, len(view), PIECE):
        value = google_crc32c.extend(value, bytes(view[start : start + PIECE]))
    return value


if google_crc32c.implementation != "c":  # no build of it for this platform: aiokafka's is compiled, and slower
    pass
