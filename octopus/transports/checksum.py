"""CRC-32C, as fast as the processor has it: the checksum of record batches (KIP-98)."""

import warnings

from octopus.broker.checksum import Checksum
from octopus.broker.checksum import crc32c as by_arithmetic

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # it is slow without its extension: then it is not used
    import google_crc32c

PIECE = 64 * 1024
"""Bytes copied at a time: the library takes nothing but bytes objects, and a copy this small stays in the cache."""


def _by_the_processor(data: bytes | memoryview) -> int:
    view = memoryview(data)
    value = 0
    for start in range(0, len(view), PIECE):
        value = google_crc32c.extend(value, bytes(view[start : start + PIECE]))
    return value


crc32c: Checksum = _by_the_processor if google_crc32c.implementation == "c" else by_arithmetic
"""Returns the CRC-32C (Castagnoli) of some bytes; by the broker's own arithmetic where the library has no compiled part."""
