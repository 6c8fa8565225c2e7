"""Numbers as event patterns compare them: doubles where a double says the same, else their text.

A JSON number is *representable* when the nearest double prints back as the same decimal:
301.8 and 1e3 are; 9007199254740993, 1e400 and 0.10000000000000000001 are not. Representable numbers
compare by value (300 = 3.0e2); the others equal nothing but their own spelling and are neither
above nor below any bound.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

#: Every integer up to here is a double, so no text is needed to compare it.
MAX_EXACT_INTEGER = 2**53

#: A decimal of at most 15 digits survives the way to a double and back (C's DBL_DIG), and a text this short
#: without an exponent can neither overflow nor underflow.
_ALWAYS_EXACT = 15


@dataclass(frozen=True, slots=True)
class RawNumber:
    """A number that no double represents; only its text is left to compare."""

    text: str


def read_number(text: str) -> float | RawNumber:
    """Read the text of a JSON number.

    Returns:
        The double that says the same, or the raw text when there is none.
    """
    value = float(text)
    if len(text) <= _ALWAYS_EXACT and "e" not in text and "E" not in text:
        return value
    try:
        exact = Decimal(text) == Decimal(repr(value))
    except InvalidOperation:  # an exponent beyond even Decimal's range
        exact = False
    return value if exact else RawNumber(text)


def read_integer(value: int) -> float | RawNumber:
    """Do the same for an integer that a JSON decoder has already read; integers keep their text."""
    try:
        return read_number(str(value))
    except ValueError:  # thousands of digits: Python refuses to spell it, so it equals nothing
        return RawNumber("")
