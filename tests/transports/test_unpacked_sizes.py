"""What a payload can become is told by its frames: never less than it does, in as many steps as it has blocks."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.transports.decompression import DECOMPRESSORS, GZIP, LZ4, SNAPPY, ZSTD
from octopus.transports.unpacked_sizes import unpacked_size

from .test_decompression import every_codec, lz4, snappy, xerial, zstd

Compress = Callable[[bytes], bytes]
data = st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=300), st.integers(0, 3000))


def zstd_streamed(given: bytes) -> bytes:
    """Compress as the Java library does, without announcing how much it is."""
    compressor = cramjam.zstd.Compressor()
    compressor.compress(given)
    return bytes(compressor.finish())


@every_codec
@given(given=data)
def test_it_is_never_less_than_what_comes_out(codec: int, compress: Compress, given: bytes) -> None:
    size = unpacked_size(codec, compress(given))
    assert size is not None
    assert size >= len(given)
    if codec in (GZIP, SNAPPY):
        assert size == len(given)


@pytest.mark.parametrize("compress", [zstd, zstd_streamed], ids=["announced", "streamed"])
@given(given=data)
def test_of_zstd_it_is_a_block_too_much_at_most(compress: Compress, given: bytes) -> None:
    size = unpacked_size(ZSTD, compress(given))
    assert size is not None
    assert len(given) <= size <= len(given) + 128 * 1024
    assert DECOMPRESSORS[ZSTD](compress(given), size) == given


@pytest.mark.parametrize(("codec", "compress"), [(LZ4, lz4), (ZSTD, zstd)], ids=["lz4", "zstd"])
@given(frames=st.lists(data, max_size=3))
def test_frames_add_up(codec: int, compress: Compress, frames: list[bytes]) -> None:
    skipped = struct.pack("<II", 0x184D2A50, 3) + b"xyz"
    size = unpacked_size(codec, skipped + b"".join(map(compress, frames)))
    assert size is not None
    assert size >= sum(map(len, frames))


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD, 7])
@given(noise=st.binary(max_size=60))
def test_noise_has_a_size_or_none_and_is_no_error(codec: int, noise: bytes) -> None:
    size = unpacked_size(codec, noise)
    assert size is None or size >= 0


@every_codec
@given(given=data, share=st.floats(0, 1))
def test_what_is_cut_off_has_a_size_or_none(codec: int, compress: Compress, given: bytes, share: float) -> None:
    whole = compress(given)
    unpacked_size(codec, whole[: int(share * len(whole))])


def test_a_frame_that_announces_much_and_holds_nothing_is_worth_its_blocks() -> None:
    announces = struct.pack("<IBBQ", 0xFD2FB528, 0b11000000, 0, 2**40) + (1).to_bytes(3, "little")
    assert unpacked_size(ZSTD, announces) == 0


@every_codec
def test_unpacking_needs_no_more_than_what_comes_out_and_a_little(codec: int, compress: Compress) -> None:
    given = compress(bytes(30_000_000) if compress is not xerial else bytes(300_000))
    tracemalloc.start()
    try:
        out = DECOMPRESSORS[codec](given, 2**26, 61)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(out) + 6_000_000


def test_gzip_of_several_members_is_unpacked_whole_though_its_end_tells_of_the_last() -> None:
    members = gzip.compress(b"a" * 100_000) + gzip.compress(b"")
    assert unpacked_size(GZIP, members) == 0
    assert DECOMPRESSORS[GZIP](members, 100_000) == b"a" * 100_000


def test_snappy_of_nothing_is_nothing() -> None:
    assert unpacked_size(SNAPPY, snappy(b"")) == 0
