"""Which segments of a log are full, which go, and which are worth compacting: decided from sizes and times alone."""

import pytest

from octopus.broker.files import MemoryFile
from octopus.broker.log.retention import are_worth_compacting, is_expired, is_full, surplus
from octopus.broker.log.segment import Segment
from octopus.broker.log.values import LogConfig


def segment(size: int, *, newest: int = -1, at: int = 0, end: int = 1) -> Segment:
    """A segment of so many bytes, made and changed at a time, whose newest record says another."""
    made = Segment(0, MemoryFile(), now=at)
    made.size, made.max_timestamp, made.next_offset = size, newest, end
    return made


@pytest.mark.parametrize(
    ("size", "more", "now", "expected"),
    [
        pytest.param(0, 500, 9999, False, id="an empty one is never full"),
        pytest.param(60, 40, 0, False, id="what fits"),
        pytest.param(60, 41, 0, True, id="what does not fit"),
        pytest.param(1, 1, 50, True, id="one that is old enough"),
    ],
)
def test_a_segment_is_full_by_size_or_by_age(size: int, more: int, now: int, expected: bool) -> None:
    assert is_full(segment(size), more, LogConfig(segment_bytes=100, segment_ms=50), now) is expected


@pytest.mark.parametrize(
    ("newest", "at", "limit", "expected"),
    [
        pytest.param(10, 99, 50, True, id="its records say so"),
        pytest.param(-1, 10, 50, True, id="records without a time: when it was written"),
        pytest.param(50, 0, 50, False, id="on the limit"),
        pytest.param(0, 0, -1, False, id="no limit"),
    ],
)
def test_a_segment_expires_by_its_newest_record(newest: int, at: int, limit: int, expected: bool) -> None:
    assert is_expired(segment(1, newest=newest, at=at), LogConfig(retention_ms=limit), 100) is expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param({"retention_ms": -1}, 0, id="nothing limits them"),
        pytest.param({"retention_ms": 60}, 2, id="two are too old, and an old one behind a young one stays"),
        pytest.param({"retention_ms": -1, "retention_bytes": 30}, 1, id="only whole segments, and no more than needed"),
        pytest.param({"retention_ms": -1, "retention_bytes": 0}, 4, id="too many"),
    ],
)
def test_the_oldest_go_until_one_may_stay(limits: dict[str, int], expected: int) -> None:
    segments = [segment(10, newest=newest) for newest in (0, 10, 90, 0)]
    assert surplus(segments, 40, LogConfig(**limits), 100) == expected


@pytest.mark.parametrize(("compacted", "expected"), [(30, False), (20, False), (15, True), (0, True)])
def test_compacting_is_worth_it_where_half_is_new(compacted: int, expected: bool) -> None:
    segments = [segment(10, end=end) for end in (10, 20, 30)]
    assert are_worth_compacting(segments, compacted) is expected


def test_of_nothing_nothing_is_worth_compacting() -> None:
    assert not are_worth_compacting([], 0)
