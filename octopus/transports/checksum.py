"""CRC-32C, as fast as the processor has it: the checksum of record batches (KIP-98)."""

import warnings
from collections.abc import Iterable

from octopus.broker.checksum import Checksum
from octopus.broker.checksum import crc32c as by_arithmetic

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # it is slow without its extension: then it is not used
    import google_crc32c

PIECE = 64 * 1024
"""Bytes of a view copied at a time: the library takes nothing but bytes objects, and a copy this small stays in the cache."""


def _by_the_processor(data: bytes | memoryview) -> int:
    return _on_by_the_processor(0, data)


def _on_by_the_processor(value: int, data: bytes | memoryview) -> int:
    if type(data) is bytes:
        extended: int = google_crc32c.extend(value, data)
        return extended
    view = memoryview(data)
    for start in range(0, len(view), PIECE):
        value = google_crc32c.extend(value, bytes(view[start : start + PIECE]))
    return value


def _of_pieces_by_the_processor(pieces: Iterable[bytes]) -> int:
    value = 0
    for piece in pieces:
        value = _on_by_the_processor(value, piece)
    return value


def _of_pieces_by_arithmetic(pieces: Iterable[bytes]) -> int:
    return by_arithmetic(b"".join(pieces))


_IS_COMPILED = google_crc32c.implementation == "c"

crc32c: Checksum = _by_the_processor if _IS_COMPILED else by_arithmetic
"""Returns the CRC-32C (Castagnoli) of some bytes; by the broker's own arithmetic where the library has no compiled part."""

crc32c_of_pieces = _of_pieces_by_the_processor if _IS_COMPILED else _of_pieces_by_arithmetic
"""Returns the same of bytes that stand in several pieces, without joining them."""
