"""The offset map in a commit's metadata: it reads back as it was written, or says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.runner.commit_metadata import MAP_LIMIT, decode_map, encode_map


@given(st.integers(0, 2**40), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=30))
def test_a_map_reads_back_as_it_was_written(base: int, steps: list[tuple[int, int]]) -> None:
    ranges = []
    at = base
    for distance, length in steps:
        ranges.append((at + distance, at + distance + length))
        at += distance + length + 1
    assert decode_map(base, encode_map(base, ranges, limit=10**9)) == ranges


def test_a_map_that_does_not_fit_gives_way_to_the_plain_offset() -> None:
    ranges = [(offset, offset) for offset in range(1, 100_000, 2)]
    assert encode_map(0, ranges) == ""
    fitting = encode_map(0, ranges[:1000])
    assert 0 < len(fitting) <= MAP_LIMIT


good = encode_map(7, [(9, 12)])


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "hello",
        good[:-1],
        good.replace(" 7 ", " 8 "),
        good + " more",
        good[:-4] + "AAAA",
        "octopus-offsets-2" + good[17:],
    ],
    ids=["empty", "foreign", "cut", "other base", "extra field", "bad checksum", "other version"],
)
def test_metadata_that_is_not_our_map_means_nothing_is_known(metadata: str) -> None:
    assert decode_map(7, metadata) == []


def test_a_map_is_ignored_when_somebody_moved_the_group() -> None:
    assert decode_map(7, good) == [(9, 12)]
    assert decode_map(6, good) == []
