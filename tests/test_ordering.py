"""Lanes: what may start, and what must wait for whom."""

from collections import defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.events import Batch, Record
from octopus.ordering import LANES, BatchLane, KeyLanes, NoLanes, Ordering, PartitionLane


def record(offset: int, key: bytes | None = None) -> Record:
    return Record("t", 0, offset, 0, key)


def test_a_partition_lane_hands_out_one_record_at_a_time() -> None:
    lane = PartitionLane()
    lane.put([record(0), record(1)])
    first = lane.take()
    assert first == record(0)
    assert lane.take() is None
    assert lane.release(first)
    assert lane.take() == record(1)
    assert not lane.release(record(1))


def test_a_busy_key_holds_back_only_its_own_successors() -> None:
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"a")])
    first, second = lanes.take(), lanes.take()
    assert [first, second] == [record(0, b"a"), record(2, b"b")]
    assert lanes.take() is None
    assert lanes.waiting == 0
    assert lanes.release(record(0, b"a"))
    assert lanes.take() == record(1, b"a")
    assert lanes.take() is None, "the key is claimed again"
    lanes.put([record(4, b"a")])
    assert lanes.take() is None
    lanes.release(record(1, b"a"))
    assert lanes.take() == record(3, b"a")
    lanes.release(record(3, b"a"))
    assert lanes.take() == record(4, b"a")
    assert not lanes.release(record(4, b"a"))


def test_records_without_a_key_have_no_order() -> None:
    lanes = KeyLanes()
    lanes.put([record(0), record(1)])
    assert (lanes.take(), lanes.take()) == (record(0), record(1))
    assert not lanes.release(record(0))


def test_without_order_everything_may_start() -> None:
    lanes = NoLanes()
    lanes.put([record(0, b"a"), record(1, b"a")])
    assert lanes.waiting == 2
    assert lanes.take() == record(0, b"a")
    assert lanes.release(record(0, b"a"))
    assert lanes.take() == record(1, b"a")
    assert lanes.take() is None


def test_a_batch_waits_until_it_is_full() -> None:
    lane = BatchLane(3)
    lane.put([record(0), record(1)])
    assert lane.take() is None
    lane.put([record(2), record(3)])
    assert lane.take() == Batch([record(0), record(1), record(2)])


def test_a_batch_is_taken_as_it_is_when_its_window_is_over() -> None:
    lane = BatchLane(3)
    lane.flush()
    assert lane.take() is None, "an empty batch is no batch"
    lane.put([record(0)])
    batch = lane.take()
    assert batch == Batch([record(0)])
    lane.put([record(1), record(2), record(3)])
    assert lane.take() is None, "one batch of a partition at a time"
    assert lane.release(record(0))
    assert lane.waiting == 3
    taken = lane.take()
    assert taken is not None
    assert taken.offset == 1


def test_a_batch_stands_for_its_first_record() -> None:
    batch = Batch([Record("t", 0, 7, 99, b"k", b"v", (("h", b"x"),)), record(8)])
    assert (batch.offset, batch.timestamp, batch.key, batch.value, batch.headers) == (7, 99, b"k", b"v", (("h", b"x"),))


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
@given(keys=st.lists(st.sampled_from([None, b"a", b"b", b"c"]), max_size=40), random=st.randoms(use_true_random=False))
def test_every_record_runs_once_and_no_lane_is_entered_twice(
    ordering: Ordering, keys: list[bytes | None], random: Random
) -> None:
    lanes = LANES[ordering]()
    coming = [record(offset, key) for offset, key in enumerate(keys)]
    running: list[Record] = []
    started: list[Record] = []
    while coming or running or lanes.waiting:
        match random.choice(["put", "take", "release"]):
            case "put" if coming:
                lanes.put([coming.pop(0)])
            case "release" if running:
                done = running.pop(random.randrange(len(running)))
                lanes.release(done)
            case _:
                taken = lanes.take()
                if taken is not None:
                    assert isinstance(taken, Record)
                    if ordering == "partition":
                        assert not running
                    if ordering == "key":
                        assert taken.key is None or taken.key not in [other.key for other in running]
                    running.append(taken)
                    started.append(taken)
    assert sorted(each.offset for each in started) == [*range(len(keys))]
    per_lane = defaultdict(list)
    for each in started:
        if ordering == "partition" or (ordering == "key" and each.key is not None):
            per_lane[each.key if ordering == "key" else None].append(each.offset)
    assert all(offsets == sorted(offsets) for offsets in per_lane.values())
