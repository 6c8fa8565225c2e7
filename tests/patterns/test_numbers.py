"""A number is a double where a double says the same, and else its text."""

import pytest

from octopus.patterns.numbers import RawNumber, read_integer, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300", 300.0),
        ("3.0e2", 300.0),
        ("-0.1", -0.1),
        ("9007199254740992", 2.0**53),
        ("1e22", 1e22),
        ("0.30000000000000004", 0.1 + 0.2),
    ],
)
def test_a_number_that_a_double_prints_back_is_that_double(text: str, value: float) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text", ["9007199254740993", "0.10000000000000000001", "1e400", "-1e400", "1e-400", "1e9999999999999999999999"]
)
def test_a_number_that_no_double_says_equals_nothing_but_its_own_spelling(text: str) -> None:
    assert read_number(text) == RawNumber(text)
    assert read_number(text) != RawNumber(f"{text}0")


def test_integers_keep_their_text_until_there_are_too_many_digits_to_spell() -> None:
    assert read_integer(2**53) == 2.0**53
    assert read_integer(2**53 + 1) == RawNumber(str(2**53 + 1))
    assert read_integer(10**5000) == RawNumber("")
