"""Records that are read when their turn comes: each once, in order, and loudly when they are no records after all."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.errors import CorruptBatch, TransportError
from octopus.runner.lanes import BatchLane, KeyLanes, LaneQueue, NoLanes, PartitionLane
from octopus.runner.ledger import offsets_of
from octopus.unread import Unread
from tests.staged import UnreadBatch, records, unread

KINDS: list[Callable[[], LaneQueue]] = [PartitionLane, KeyLanes, NoLanes, lambda: BatchLane(4)]


@given(st.integers(1, 20), st.integers(1, 6), st.lists(st.integers(1, 7), min_size=20), st.integers(0, 20))
def test_each_record_is_read_once_in_order(count: int, in_a_batch: int, limits: list[int], copied_after: int) -> None:
    given_records = records(range(5, 5 + count))
    waiting = unread(given_records, in_a_batch)
    assert (len(waiting), offsets_of(waiting)) == (count, range(5, 5 + count))
    found = []
    for turn, limit in enumerate(limits):
        if turn == copied_after:
            waiting.stand_alone()
        some = waiting.read(limit)
        assert len(some) == min(limit, count - len(found))
        found += some
        assert waiting.offsets == range(5 + len(found), 5 + count)
    assert found == given_records
    assert waiting.error is None
    assert not waiting


def test_iterating_reads_what_is_left() -> None:
    waiting = unread(records(range(1000)), in_a_batch=100)
    waiting.read(150)
    assert [each.offset for each in waiting] == [*range(150, 1000)]
    assert [*waiting] == []


def test_what_stands_alone_keeps_no_frame() -> None:
    batches = [UnreadBatch(records(range(start, start + 3))) for start in (0, 3, 6)]
    waiting = Unread(batches, lambda offset, error: CorruptBatch(str(error)))
    waiting.read(1)
    waiting.stand_alone()
    assert [batch.framed for batch in waiting._batches] == [False, False]  # type: ignore[attr-defined]
    assert [each.offset for each in waiting] == [*range(1, 9)]


@given(st.integers(0, 11), st.integers(1, 5), st.integers(1, 13), st.integers(0, 14))
def test_what_cannot_be_read_is_told_once_and_nothing_behind_it_is_read(
    broken_at: int, in_a_batch: int, limit: int, copied_after: int
) -> None:
    heard: list[TransportError] = []
    waiting = unread(records(range(12)), in_a_batch, broken_at)
    waiting.report = heard.append
    found = []
    for turn in range(13):
        if turn == copied_after:
            waiting.stand_alone()
        found += waiting.read(limit)
    assert [each.offset for each in found] == [*range(len(found))]
    assert broken_at - in_a_batch < len(found) <= broken_at
    assert heard == [waiting.error]
    assert str(waiting.error).startswith(f"{len(found)}: ")
    assert len(waiting) == 12 - len(found)


def test_iterating_raises_when_nobody_listens() -> None:
    waiting = unread(records(range(12)), 3, broken_at=7)
    with pytest.raises(CorruptBatch, match="the bytes end here"):
        list(waiting)


@pytest.mark.parametrize("there", [(0, 1), (1, 2, 3), (0, 2, 3), (0, 1, 3), ()], ids=str)
def test_a_header_that_lies_about_offsets_is_corruption(there: tuple[int, ...]) -> None:
    class Lying(UnreadBatch):
        def __init__(self) -> None:
            super().__init__(records(range(3)))
            self._given = records(there)

    waiting = Unread([Lying()], lambda offset, error: CorruptBatch(f"{offset}: {error}"))
    assert [each.offset for each in waiting.read(9)] == []
    assert "not the records that its header tells of" in str(waiting.error)


@pytest.mark.parametrize("make", KINDS, ids=["partition", "key", "none", "batch"])
def test_lanes_hand_out_nothing_behind_what_cannot_be_read(make: Callable[[], LaneQueue]) -> None:
    lanes = make()
    broken = unread(records(range(6)), 3, broken_at=4)
    broken.report = lambda error: None
    lanes.put(broken)
    lanes.put(records([6, 7]))
    taken = []
    for _ in range(5):
        lanes.put(records([8]))
        for each in lanes.take(9):
            taken += each if isinstance(each, list) else [each]
            lanes.release([each])
    assert [each.offset for each in taken] == [0, 1, 2]
    assert lanes.waiting == 0
