"""What a batch holds comes out as it went in, never more of it than allowed, and damage is named."""

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
import pytest

from octopus.errors import BatchTooLarge, CorruptBatch, TransportError
from octopus.transports.broker_codecs import codecs
from octopus.transports.decompression import DECOMPRESSORS, gunzip, unsnappy

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
Compress = Callable[[bytes], bytes]


def snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def xerial(data: bytes) -> bytes:
    """Compress as the Java library does: a header, then blocks with their lengths."""
    blocks = [snappy(data[start : start + 100]) for start in range(0, len(data), 100)]
    framed = b"".join(struct.pack(">i", len(block)) + block for block in blocks)
    return b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + framed


def lz4(data: bytes) -> bytes:
    return bytes(cramjam.lz4.compress(data))


def zstd(data: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(data))


every_codec = pytest.mark.parametrize(
    ("codec", "compress"),
    [(GZIP, gzip.compress), (SNAPPY, snappy), (SNAPPY, xerial), (LZ4, lz4), (ZSTD, zstd)],
    ids=["gzip", "snappy", "java's snappy", "lz4", "zstd"],
)


@every_codec
@pytest.mark.parametrize("size", [0, 1, 1000, 500_000])
def test_what_was_compressed_comes_out_again_up_to_the_limit_exactly(codec: int, compress: Compress, size: int) -> None:
    data = (b"0123456789" * (size // 10 + 1))[:size]
    assert DECOMPRESSORS[codec](compress(data), max(size, 1)) == data


@every_codec
@pytest.mark.parametrize("limit", [1, 999, 70_000])
def test_a_byte_over_the_limit_is_refused_and_the_limit_is_named(codec: int, compress: Compress, limit: int) -> None:
    with pytest.raises(BatchTooLarge, match=f"more than {limit} bytes"):
        DECOMPRESSORS[codec](compress(b"x" * (limit + 1)), limit)


@every_codec
@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\0\xff", b"\xff\0"], ids=["zeros", "ones", "0 1", "1 0"])
@pytest.mark.parametrize("limit", [1, 2, 70_000, 300_001])
def test_too_much_is_too_much_whatever_is_at_the_limit(
    codec: int, compress: Compress, filling: bytes, limit: int
) -> None:
    with pytest.raises(BatchTooLarge):
        DECOMPRESSORS[codec](compress((filling * limit)[:limit] + filling[:1]), limit)


@every_codec
@pytest.mark.parametrize("filling", [b"\0", b"\xff"], ids=["zeros", "ones"])
@pytest.mark.parametrize("size", [99, 300_000])
def test_damage_below_the_limit_is_damage_whatever_came_before_it(
    codec: int, compress: Compress, filling: bytes, size: int
) -> None:
    with pytest.raises(CorruptBatch):
        DECOMPRESSORS[codec](compress(filling * size)[:-2], size + 10)


@every_codec
@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_damage_is_corruption_and_no_other_error(codec: int, compress: Compress, damage: str) -> None:
    whole = compress(bytes(range(256)) * 4)
    damaged = whole[: len(whole) - 9] if damage == "cut" else b"\xff" * 40
    with pytest.raises(CorruptBatch, match="does not decompress"):
        DECOMPRESSORS[codec](damaged, 10_000)


@pytest.mark.parametrize("length", [-1, 1000], ids=["negative", "beyond the batch"])
def test_a_snappy_block_that_lies_about_its_length_is_corruption(length: int) -> None:
    with pytest.raises(CorruptBatch, match="longer than the batch"):
        unsnappy(b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, length) + b"short", 10_000)


def test_fifty_thousand_gzip_members_are_not_copied_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = 0
    begin = zlib.decompressobj

    class Counting:
        def __init__(self, window: int) -> None:
            self._stream: Any = begin(window)

        def decompress(self, data: memoryview, most: int) -> bytes:
            nonlocal handed
            handed += len(data)
            part: bytes = self._stream.decompress(data, most)
            return part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    members = 50_000
    payload = gzip.compress(b"") * (members - 1) + gzip.compress(b"the end")
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    assert gunzip(payload, 100) == b"the end"
    assert handed < members * len(payload) / 50


def test_blocks_of_snappy_take_no_memory_each() -> None:
    blocks = 50_000
    payload = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + struct.pack(">ib", 1, 0) * blocks
    tracemalloc.start()
    try:
        assert unsnappy(payload, 100) == b""
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < blocks


@every_codec
def test_the_broker_gets_the_same_with_value_errors(codec: int, compress: Compress) -> None:
    decompress = codecs()[codec].decompress
    assert decompress(compress(b"data"), 100) == b"data"
    with pytest.raises(ValueError, match="more than 100 bytes") as caught:
        decompress(compress(b"x" * 101), 100)
    assert isinstance(caught.value.__cause__, TransportError)
