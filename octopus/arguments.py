"""Numbers that are given as arguments: which ones can be meant, said in a sentence where they are given."""

import math
import re
from datetime import timedelta

from octopus.errors import ConfigurationError

UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

LONGEST = 1e9
"""Seconds: thirty years."""


def is_number(value: object, least: float, most: float = math.inf) -> bool:
    """Tell whether a value is a number in a range, ends included: NaN and truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def is_count(value: object, least: int) -> bool:
    """Tell whether a value is a whole number, from `least` on."""
    return isinstance(value, int) and is_number(value, least)


def seconds(duration: object, spelled: str) -> float:
    """Return a duration in seconds.

    Args:
        duration: A number of seconds, or a timedelta.
        spelled: How it is written, with braces for the value: `timeout={}`.

    Raises:
        ConfigurationError: It is neither, or is no time.
    """
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if is_number(duration, -LONGEST, LONGEST):
        return float(duration)  # type: ignore[arg-type]  # just asked
    if isinstance(duration, int | float):
        raise ConfigurationError(
            f"{spelled.format(repr(duration))} is no time: give seconds, such as 30, or a timedelta."
        )
    hint = ""
    if isinstance(duration, str) and (meant := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", duration)):
        factor = UNITS.get(meant[2] or "s")
        hint = "" if factor is None else f": {spelled.format(f'{float(meant[1]) * factor:g}')}"
    raise ConfigurationError(f"{spelled.format(repr(duration))}: durations are seconds or a timedelta{hint}.")
