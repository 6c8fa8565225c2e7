"""The ledger: nothing is committable before everything received ahead of it is settled."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.runner.commit_metadata import decode_map, encode_map
from octopus.runner.ledger import OffsetLedger

increasing_offsets = st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=60).map(sorted)


def ledger_of(offsets: list[int], position: int | None = None) -> OffsetLedger:
    ledger = OffsetLedger(offsets[0])
    ledger.receive(offsets, offsets[-1] + 1 if position is None else position)
    return ledger


def test_a_fresh_ledger_commits_where_it_starts() -> None:
    assert OffsetLedger(42).committable == 42


def test_the_first_record_holds_everything_back_until_it_is_settled() -> None:
    ledger = ledger_of([0, 1, 2])
    ledger.settle(1)
    ledger.settle(2)
    assert (ledger.committable, ledger.ahead, ledger.in_flight) == (0, 2, 1)
    ledger.settle(0)
    assert (ledger.committable, ledger.ahead, ledger.in_flight) == (3, 0, 0)


def test_offsets_that_do_not_exist_are_stepped_over() -> None:
    ledger = ledger_of([5, 9, 100])
    ledger.settle(5)
    assert ledger.committable == 9
    ledger.settle(9)
    ledger.settle(100)
    assert ledger.committable == 101


def test_the_position_counts_when_nothing_is_open_so_that_an_idle_tail_of_control_records_commits() -> None:
    ledger = ledger_of([0], position=1)
    ledger.receive([], 7)
    assert ledger.committable == 0
    ledger.settle(0)
    assert ledger.committable == 7


@pytest.mark.parametrize(
    "offset", [0, 1, 3], ids=["settled first", "settled behind an open one", "beyond the end of an empty ledger"]
)
def test_settling_twice_or_what_was_never_received_is_an_error(offset: int) -> None:
    ledger = ledger_of([0, 1, 2])
    ledger.settle(0)
    ledger.settle(2) if offset != 1 else ledger.settle(1)
    if offset == 3:
        ledger.settle(1)
    with pytest.raises(ValueError, match="settled twice, or never received"):
        ledger.settle(offset)


@given(increasing_offsets, st.randoms(use_true_random=False))
def test_settling_in_any_order_never_commits_past_an_open_record(offsets: list[int], random: Random) -> None:
    ledger = ledger_of(offsets)
    order = offsets.copy()
    random.shuffle(order)
    open_offsets = set(offsets)
    before = ledger.committable
    for offset in order:
        ledger.settle(offset)
        open_offsets.discard(offset)
        assert ledger.committable == min(open_offsets, default=offsets[-1] + 1)
        assert ledger.committable >= before
        assert ledger.in_flight == len(open_offsets)
        assert ledger.unsettled() == sorted(open_offsets)
        before = ledger.committable
    assert ledger.settled_count == len(offsets)


@given(increasing_offsets, st.data())
def test_after_a_crash_only_what_was_unfinished_comes_again(offsets: list[int], data: st.DataObject) -> None:
    ledger = ledger_of(offsets)
    settled = data.draw(st.sets(st.sampled_from(offsets)))
    for offset in settled:
        ledger.settle(offset)
    base = ledger.committable
    text = encode_map(base, ledger.settled_ahead(), limit=10**9)

    resumed = OffsetLedger(base, decode_map(base, text))
    again = [offset for offset in offsets if offset >= base]
    cut = data.draw(st.integers(0, len(again)))  # received in two fetches
    known = {*resumed.receive(again[:cut], again[cut] if cut < len(again) else offsets[-1] + 1)}
    named = {offset for first, last in resumed.settled_ahead() for offset in offsets if first <= offset <= last}
    assert named == {offset for offset in settled if offset >= resumed.committable}, (
        "another crash may come at any time"
    )
    known |= {*resumed.receive(again[cut:], offsets[-1] + 1)}
    assert known == {offset for offset in settled if offset >= base}
    assert resumed.unsettled() == [offset for offset in again if offset not in settled]
    assert resumed.settled_count == 0


def test_what_an_earlier_owner_settled_stays_in_the_map_after_it_was_received() -> None:
    ledger = OffsetLedger(10, [(11, 20)])
    assert [*ledger.receive([10, 11, 15, 20, 21], 22)] == [11, 15, 20]
    assert (ledger.committable, ledger.settled_ahead()) == (10, [(11, 20)])
    ledger.settle(10)
    assert (ledger.committable, ledger.settled_ahead()) == (21, [])
