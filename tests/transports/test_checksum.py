"""The checksum of batches is the broker's, with an extension and without."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.broker.checksum import crc32c as by_arithmetic
from octopus.transports.checksum import PIECE, crc32c, crc32c_of_pieces

# checksums


@given(st.binary(max_size=3000))
def test_the_checksum_is_that_of_the_broker(data: bytes) -> None:
    assert crc32c(data) == crc32c(memoryview(bytearray(data))) == by_arithmetic(data)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7])
def test_the_checksum_of_more_than_a_piece_is_that_of_the_broker(size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert crc32c(data) == crc32c(memoryview(bytearray(data))) == by_arithmetic(data)


def test_the_checksum_of_the_standard_is_the_standards() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_pieces_have_the_checksum_of_what_they_are_together() -> None:
    pieces = (b"", bytes(range(256)) * 999, b"123", b"456789")
    assert crc32c_of_pieces(pieces) == crc32c(b"".join(pieces))


@pytest.mark.parametrize("extensions", [True, False], ids=["with aiokafka's", "with none at all"])
def test_without_its_extension_another_checksum_takes_over_in_silence(extensions: bool) -> None:
    program = """
import sys, time
sys.modules["google_crc32c.cext"] = None
from octopus.transports import checksum
import google_crc32c
assert google_crc32c.implementation == "python"
data = memoryview(bytearray(b"123456789"))
assert checksum.crc32c(data) == checksum.crc32c(bytes(data)) == 0xE3069283
assert checksum.crc32c_of_pieces((b"1234", b"", b"56789")) == 0xE3069283
started = time.perf_counter()
checksum.crc32c(bytes(1_000_000))
assert time.perf_counter() - started < 0.5
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={} if extensions else {"AIOKAFKA_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
