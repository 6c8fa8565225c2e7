"""Pack and unpack the records of batches: gzip by the standard library, other codecs as the starter of the broker supplies them."""

import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)

NAMES: Mapping[str, int] = {"uncompressed": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
"""Values of `compression.type`; the other one is `producer`."""

LIMIT = 64 * 2**20
"""Most bytes that the records of a batch may come to."""


class UnreadableBatch(ValueError):
    """A batch's records cannot be decoded: broken framing, no decompressor, or more than the limit."""


class NotUnpacked(UnreadableBatch):
    """They cannot even be decompressed."""


class TooLarge(UnreadableBatch):
    """They would decompress to more bytes than allowed."""


Decompress: TypeAlias = Callable[[bytes, int], bytes]
"""`decompress(data, limit)`: the plain bytes; `TooLarge` beyond `limit` bytes, any other `ValueError` for broken data."""

Compress: TypeAlias = Callable[[bytes, int | None], bytes]
"""`compress(data, level)`; None is the codec's usual level."""


class Codec(NamedTuple):
    """One of the protocol's codecs."""

    decompress: Decompress
    compress: Compress


Codecs: TypeAlias = Mapping[int, Codec]
"""By their numbers in the protocol."""


def decompressed(codec: int, data: bytes, limit: int, codecs: Codecs) -> bytes:
    """Decompress the records of a batch.

    Raises:
        TooLarge: They come to more than `limit` bytes.
        NotUnpacked: The data are broken, or nothing here unpacks this codec.
    """
    if codec == NONE:
        return data
    try:
        return _codec(codec, codecs).decompress(data, limit)
    except UnreadableBatch:
        raise
    except (ValueError, zlib.error) as error:
        raise NotUnpacked(f"The records cannot be decompressed: {error}.") from error


def compressed(codec: int, data: bytes | memoryview, level: int | None, codecs: Codecs) -> bytes:
    """Compress the records of a batch.

    Raises:
        NotUnpacked: Nothing here packs with this codec.
    """
    return bytes(data) if codec == NONE else _codec(codec, codecs).compress(bytes(data), level)


def is_known(codec: int, codecs: Codecs) -> bool:
    """Say whether something here packs and unpacks this codec."""
    return codec in (NONE, GZIP) or codec in codecs


def _codec(codec: int, codecs: Codecs) -> Codec:
    if codec in codecs:
        return codecs[codec]
    if codec != GZIP:
        raise NotUnpacked(f"There is nothing here for codec {codec}.")
    return _GZIP


def _gunzip(data: bytes, limit: int) -> bytes:
    parts = []
    room = limit
    while True:  # there may be several members
        member = zlib.decompressobj(wbits=31)
        part = member.decompress(data, room + 1)
        room -= len(part)
        if room < 0:
            raise TooLarge(f"The records decompress to more than {limit} bytes.")
        if not member.eof:
            raise NotUnpacked("The gzip data of the records end too early.")
        parts.append(part)
        data = member.unused_data
        if not data.startswith(b"\x1f\x8b"):  # any other bytes behind it belong to no codec
            return b"".join(parts)


def _gzip(data: bytes, level: int | None) -> bytes:
    return zlib.compress(data, level=-1 if level is None else level, wbits=31)


_GZIP = Codec(_gunzip, _gzip)
