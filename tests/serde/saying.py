"""Reasons for refusing, compared but for the words of libraries."""

import re

THEIRS = "…"
"""Where a reason has the words of a library, which it may change; `test_reasons.py` has what is made of those that are known."""


def says(reason: str, expected: str) -> bool:
    """Whether a reason is the expected one, with any words where those of a library stand."""
    pattern = re.escape(expected).replace(re.escape(THEIRS), ".+")
    return re.fullmatch(pattern, reason) is not None
