"""Durations and sizes as people write them."""

import math
import re
from typing import Any

_AMOUNT = r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)\s*"

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def duration(value: Any) -> float:
    """Return seconds from a number of them or from text: `0.25`, `"250ms"`, `"10s"`, `"5m"`, `"2h"`, `"7d"`.

    Raises:
        ValueError: It is neither.
    """
    amount, unit = _split(value)
    if unit not in _SECONDS:
        raise ValueError(unit)
    # Thousandths are divided, not multiplied: 2 ms is 0.002 s, to the last bit.
    return amount / 1000 if unit == "ms" else amount * _SECONDS[unit]


def size(value: Any) -> int:
    """Return bytes from a whole number of them or from text: `65536`, `"64 KiB"` (1024s), `"1.5 MB"` (1000s).

    Raises:
        ValueError: It is neither, or not a whole number of bytes.
    """
    amount, unit = _split(value)
    exact = amount * _BYTES.get(unit.lower(), math.nan)
    if not exact.is_integer():
        raise ValueError(value)
    return int(exact)


def _split(value: Any) -> tuple[float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value), ""
    if isinstance(value, str) and (found := re.fullmatch(_AMOUNT, value)):
        return float(found[1]), found[2]
    raise ValueError(value)
