"""Counts, rates and sizes as sentences say them."""

import pytest

from octopus.operations.spelling import spell_bytes, spell_count, spell_rate


@pytest.mark.parametrize(("count", "text"), [(0, "0 events"), (1, "1 event"), (2000, "2,000 events")])
def test_counts_are_spelled(count: int, text: str) -> None:
    assert spell_count(count, "event") == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [
        (2, 3.0, ""),
        (5000, 0.4, ""),
        (100, 1.0, ", 100 a second"),
        (60_000, 2.0, ", 30,000 a second"),
    ],
    ids=["a few events", "a moment", "just enough", "many events"],
)
def test_a_rate_is_said_only_where_it_says_something(count: int, seconds: float, text: str) -> None:
    assert spell_rate(count, seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (5_500_000, "5.5 MB"), (2.5e15, "2500.0 TB")]
)
def test_sizes_are_spelled(size: float, text: str) -> None:
    assert spell_bytes(size) == text
