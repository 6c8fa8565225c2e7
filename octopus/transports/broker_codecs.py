"""Compression for the embedded broker, which itself has the standard library only."""

import struct

import cramjam

from octopus.broker.codecs import GZIP, LZ4, SNAPPY, ZSTD, Codec, Codecs, Compress, TooLarge, compressed
from octopus.broker.codecs import Decompress as BrokerDecompress
from octopus.errors import BatchTooLarge, TransportError
from octopus.transports.decompression import DECOMPRESSORS, Decompressor


def codecs() -> Codecs:
    """Return Kafka's codecs; codecs with levels have Kafka's defaults."""
    return {codec: Codec(_decompress(DECOMPRESSORS[codec]), compress) for codec, compress in _COMPRESSORS.items()}


def _decompress(decompress: Decompressor) -> BrokerDecompress:
    def run(data: bytes, limit: int) -> bytes:
        try:
            return bytes(decompress(data, limit))
        except BatchTooLarge as error:
            raise TooLarge(str(error)) from error
        except TransportError as error:
            raise ValueError(str(error)) from error

    return run


def _gzip(data: bytes, level: int | None) -> bytes:
    return compressed(GZIP, data, level, {})


def _snappy(data: bytes, _: int | None) -> bytes:
    """Compress into the blocks of the Java library, as Kafka writes them."""
    view = memoryview(data)
    blocks = [bytes(cramjam.snappy.compress_raw(view[at : at + _BLOCK])) for at in range(0, len(data), _BLOCK)]
    return _XERIAL + b"".join(struct.pack(">i", len(block)) + block for block in blocks)


def _lz4(data: bytes, level: int | None) -> bytes:
    # Kafka takes frames of independent blocks only (KIP-57).
    frame = cramjam.lz4.Compressor(level=9 if level is None else level, content_checksum=False, block_linked=False)
    frame.compress(data)
    return bytes(frame.finish())


def _zstd(data: bytes, level: int | None) -> bytes:
    return bytes(cramjam.zstd.compress(data, level=3 if level is None else level))


_XERIAL = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
_BLOCK = 32 * 1024
_COMPRESSORS: dict[int, Compress] = {GZIP: _gzip, SNAPPY: _snappy, LZ4: _lz4, ZSTD: _zstd}
