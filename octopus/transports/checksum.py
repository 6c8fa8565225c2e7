"""CRC-32C, as fast as the processor has it: the checksum of record batches (KIP-98)."""

import warnings
from typing import Any

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


def _without_extension() -> Checksum:
    """Return aiokafka's, which is compiled where aiokafka is; otherwise the broker's, the best without a compiler."""
    from aiokafka.record import util

    compiled: Any = util.calc_crc32c
    return by_arithmetic if compiled is util.calc_crc32c_py else compiled


crc32c: Checksum = _by_the_processor if google_crc32c.implementation == "c" else _without_extension()
"""Returns the CRC-32C (Castagnoli) of some bytes."""
