"""CRC-32C without a compiled module."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octopus.broker import checksum
from octopus.broker.checksum import crc32c


def bitwise(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(b"123456789", 0xE3069283, id="the-usual-check"),
        pytest.param(bytes(32), 0x8A9136AA, id="zeros (RFC 3720)"),
        pytest.param(b"\xff" * 32, 0x62A8AB43, id="ones (RFC 3720)"),
        pytest.param(bytes(range(32)), 0x46DD794E, id="rising (RFC 3720)"),
    ],
)
def test_known_messages_have_their_known_checksums(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 60))
@example(b"\x00", 1025)
@example(b"ab", 20_000)
def test_long_messages_are_summed_like_bit_by_bit(data: bytes, repeat: int) -> None:
    assert crc32c(data * repeat) == bitwise(data * repeat)


def test_views_are_summed_like_bytes() -> None:
    data = bytes(range(256)) * 20
    assert crc32c(memoryview(data)[7:]) == crc32c(data[7:])


def test_the_generator_divides_the_polynomial_that_folding_rests_on() -> None:
    generator = 0x11EDC6F41
    dividend = 1 | sum(1 << degree for degree in (checksum._DEGREE, checksum._MIDDLE, checksum._LOW))
    while dividend.bit_length() >= generator.bit_length():
        dividend ^= generator << (dividend.bit_length() - generator.bit_length())
    assert dividend == 0
