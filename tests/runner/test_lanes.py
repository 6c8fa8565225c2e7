"""LaneQueue: what may start, and what must wait for whom."""

from collections import defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.events import Batch, Record, StoredRecord
from octopus.routing import Ordering
from octopus.runner.lanes import LANES, BatchLane, KeyLanes, LaneQueue, NoLanes, PartitionLane


def record(offset: int, key: bytes | None = None) -> Record:
    return Record("t", 0, offset, 0, key)


def records(count: int) -> list[Record]:
    return [record(offset) for offset in range(count)]


def one(lanes: LaneQueue) -> StoredRecord:
    [taken] = lanes.take()
    return taken


def test_a_partition_lane_hands_out_one_claim_at_a_time() -> None:
    lane = PartitionLane()
    lane.put(records(3))
    assert lane.take(2) == records(2)
    assert not lane.take()
    assert lane.release(records(2))
    assert lane.take(5) == [record(2)]
    assert not lane.release([record(2)])


def test_what_a_partition_lane_takes_back_comes_first_and_it_stays_claimed() -> None:
    lane = PartitionLane()
    lane.put(records(5))
    taken = lane.take(3)
    lane.put_back(taken[1:], taken[0])
    assert (lane.waiting, [*lane.take()]) == (4, [])
    assert not lane.release([], unfinished=[record(0)])
    assert lane.release([record(0)])
    assert [*lane.take(9), *lane.take(9)] == [record(1), record(2)]
    lane.release([record(1), record(2)])
    assert lane.take(9) == [record(3), record(4)]


def test_a_busy_key_holds_back_only_its_own_successors() -> None:
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"a")])
    first, second = one(lanes), one(lanes)
    assert [first, second] == [record(0, b"a"), record(2, b"b")]
    assert not lanes.take()
    assert lanes.waiting == 0
    assert lanes.release([record(0, b"a")])
    assert one(lanes) == record(1, b"a")
    assert not lanes.take(), "the key is claimed again"
    lanes.put([record(4, b"a")])
    assert not lanes.take()
    lanes.release([record(1, b"a")])
    assert lanes.take(9) == [record(3, b"a"), record(4, b"a")], "one after the other they may run in one claim"
    assert not lanes.release([record(3, b"a"), record(4, b"a")])


def test_what_key_lanes_take_back_is_ready_but_for_what_has_the_key_of_the_running_record() -> None:
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"b"), record(2, b"a"), record(3, b"c"), record(4, b"c"), record(5)])
    taken = lanes.take(9)
    assert [each.offset for each in taken] == [0, 1, 2, 3, 4, 5]
    lanes.put([record(6, b"a"), record(7, b"c")])
    lanes.put_back(taken[2:], taken[1])  # 0 is finished, 1 is running
    assert lanes.release(taken[:1], taken[1:])
    started = [one(lanes) for _ in range(3)]
    assert [each.offset for each in started] == [2, 3, 5], "each key once"
    assert not lanes.take(9)
    assert lanes.release([record(2, b"a")])
    assert one(lanes) == record(6, b"a")
    assert lanes.release([record(3, b"c")])
    assert lanes.take(9) == [record(4, b"c"), record(7, b"c")]


def test_what_came_back_to_the_lane_of_a_claim_runs_before_what_the_claim_gives_back() -> None:
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"a")])
    refused = one(lanes)
    lanes.release([refused])
    taken = lanes.take(9)
    lanes.put_first(refused)
    lanes.put_back(taken[1:], taken[0])
    assert one(lanes) == record(2, b"b")
    assert lanes.release(taken[:1])
    assert one(lanes) == refused
    assert lanes.release([refused])
    assert one(lanes) == record(3, b"a")


def test_a_claim_of_key_lanes_is_in_the_order_of_offsets() -> None:
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"b"), record(2, b"a"), record(3, b"c"), record(4, b"b")])
    assert [one(lanes), one(lanes)] == [record(0, b"a"), record(1, b"b")]
    assert one(lanes) == record(3, b"c")
    assert not lanes.take(), "2 and 4 wait for their keys"
    lanes.release([record(1, b"b")])
    lanes.release([record(0, b"a")])
    assert [each.offset for each in lanes.take(9)] == [2, 4]


def test_records_without_a_key_have_no_order() -> None:
    lanes = KeyLanes()
    lanes.put(records(2))
    assert (one(lanes), one(lanes)) == (record(0), record(1))
    assert not lanes.release([record(0)])


def test_without_order_everything_may_start() -> None:
    lanes = NoLanes()
    lanes.put([record(0, b"a"), record(1, b"a")])
    assert lanes.waiting == 2
    assert one(lanes) == record(0, b"a")
    assert lanes.release([record(0, b"a")])
    assert one(lanes) == record(1, b"a")
    assert not lanes.take()


def test_a_batch_waits_until_it_is_full() -> None:
    lane = BatchLane(3)
    lane.put(records(2))
    assert not lane.take()
    lane.put([record(2), record(3)])
    assert one(lane) == Batch(records(3))


def test_a_batch_is_taken_as_it_is_when_its_window_is_over() -> None:
    lane = BatchLane(3)
    lane.flush()
    assert not lane.take(), "an empty batch is no batch"
    lane.put([record(0)])
    assert one(lane) == Batch([record(0)])
    lane.put([record(1), record(2), record(3)])
    assert not lane.take(), "one batch of a partition at a time"
    assert lane.release([record(0)])
    assert lane.waiting == 3
    assert one(lane).offset == 1


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
    claims: list[list[StoredRecord]] = []  # the first of each runs
    started: list[StoredRecord] = []
    while coming or claims or lanes.waiting:
        match random.choice(["put", "take", "next", "split"]):
            case "put" if coming:
                count = random.randint(1, 4)
                lanes.put(coming[:count])
                del coming[:count]
            case "next" if claims:
                claim = random.choice(claims)
                done = claim.pop(0)
                if claim:  # as when a claim goes on after a record
                    started.append(claim[0])
                    lanes.release([done], claim)
                else:
                    claims.remove(claim)
                    lanes.release([done])
            case "split" if claims:
                claim = random.choice(claims)
                lanes.put_back(claim[1:], claim[0])
                del claim[1:]
            case _:
                if taken := lanes.take(random.randint(1, 6)):
                    offsets = [each.offset for each in taken]
                    assert offsets == sorted(offsets), "the ledger counts on it"
                    claims.append([*taken])
                    started.append(taken[0])
        running = [claim[0] for claim in claims]
        if ordering == "partition":
            assert len(running) <= 1
        if ordering == "key":
            claimed = [each.key for each in running if each.key is not None]
            assert len({*claimed}) == len(claimed)
    assert sorted(each.offset for each in started) == [*range(len(keys))]
    per_lane = defaultdict(list)
    for each in started:
        if ordering == "partition" or (ordering == "key" and each.key is not None):
            per_lane[each.key if ordering == "key" else None].append(each.offset)
    assert all(offsets == sorted(offsets) for offsets in per_lane.values())
