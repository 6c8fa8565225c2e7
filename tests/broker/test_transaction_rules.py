"""The rules of the transaction coordinator, one by one (KIP-98)."""

from collections.abc import Callable

import pytest

from octopus.broker import transactions
from octopus.broker.codes import BrokerError, Code
from octopus.broker.offsets import Committed
from octopus.broker.producers import TransactionState

NOW, TIMEOUT, LONGEST = 1_000_000, 60_000, 900_000
PLACE = ("topic", 0)


def fresh() -> TransactionState:
    return transactions.initialize(None, "t", TIMEOUT, LONGEST, NOW, lambda: 7)


def ongoing() -> TransactionState:
    return transactions.add_partitions(fresh(), 7, 0, [PLACE], NOW)


def ended(commit: bool) -> TransactionState:
    return transactions.completed(transactions.end(ongoing(), 7, 0, commit, NOW), NOW)


def refusal(call: Callable[[], object]) -> int:
    with pytest.raises(BrokerError) as caught:
        call()
    return caught.value.code


def test_a_new_id_gets_a_new_producer_and_an_old_one_the_next_epoch() -> None:
    state = fresh()
    assert (state.producer_id, state.producer_epoch, state.phase) == (7, 0, "empty")
    again = transactions.initialize(state, "t", TIMEOUT, LONGEST, NOW, lambda: 8)
    assert (again.producer_id, again.producer_epoch) == (7, 1)


def test_epochs_that_run_out_are_followed_by_a_new_producer() -> None:
    worn = TransactionState("t", 7, transactions.LAST_EPOCH, TIMEOUT)
    assert transactions.initialize(worn, "t", TIMEOUT, LONGEST, NOW, lambda: 8).producer_id == 8


@pytest.mark.parametrize("timeout", [0, -1, LONGEST + 1])
def test_a_timeout_that_is_not_positive_or_too_long_is_refused(timeout: int) -> None:
    call = lambda: transactions.initialize(None, "t", timeout, LONGEST, NOW, lambda: 7)  # noqa: E731
    assert refusal(call) == Code.INVALID_TRANSACTION_TIMEOUT


CALLS: dict[str, Callable[[TransactionState | None, int, int], object]] = {
    "add partitions": lambda state, pid, epoch: transactions.add_partitions(state, pid, epoch, [PLACE], NOW),
    "add group": lambda state, pid, epoch: transactions.add_group(state, pid, epoch, "g", NOW),
    "add offsets": lambda state, pid, epoch: transactions.add_offsets(state, pid, epoch, "g", {}, NOW),
    "end": lambda state, pid, epoch: transactions.end(state, pid, epoch, True, NOW),
    "write": lambda state, pid, epoch: transactions.check_write(state, pid, epoch, PLACE),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_checks_producer_id_and_epoch(name: str) -> None:
    call, state = CALLS[name], ongoing()
    assert refusal(lambda: call(None, 7, 0)) == Code.INVALID_PRODUCER_ID_MAPPING
    assert refusal(lambda: call(state, 8, 0)) == Code.INVALID_PRODUCER_ID_MAPPING
    assert refusal(lambda: call(state, 7, 1)) == Code.INVALID_PRODUCER_EPOCH
    fenced = transactions.completed(transactions.fence(state, NOW), NOW)
    assert refusal(lambda: call(fenced, 7, 0)) == Code.INVALID_PRODUCER_EPOCH


def test_the_first_partition_begins_a_transaction_and_later_ones_do_not_restart_its_clock() -> None:
    state = transactions.add_partitions(ongoing(), 7, 0, [("topic", 1)], NOW + 5)
    assert (state.phase, state.started) == ("ongoing", NOW)
    assert state.partitions == {PLACE, ("topic", 1)}


def test_writes_need_an_open_transaction_that_covers_the_partition() -> None:
    transactions.check_write(ongoing(), 7, 0, PLACE)
    for state, place in [(ongoing(), ("topic", 1)), (fresh(), PLACE), (ended(True), PLACE)]:
        assert refusal(lambda state=state, place=place: transactions.check_write(state, 7, 0, place)) == (
            Code.INVALID_TXN_STATE
        )


def test_offsets_are_kept_until_the_end_and_only_for_groups_that_were_announced() -> None:
    offsets = {PLACE: Committed(5, "", NOW)}
    assert refusal(lambda: transactions.add_offsets(ongoing(), 7, 0, "g", offsets, NOW)) == Code.INVALID_TXN_STATE
    state = transactions.add_group(ongoing(), 7, 0, "g", NOW)
    state = transactions.add_offsets(state, 7, 0, "g", offsets, NOW)
    state = transactions.add_offsets(state, 7, 0, "g", {("topic", 1): Committed(6, "", NOW)}, NOW)
    assert set(state.offsets["g"]) == {PLACE, ("topic", 1)}
    assert transactions.completed(transactions.end(state, 7, 0, True, NOW), NOW).offsets == {}


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
def test_repeating_an_end_is_success_and_changing_ones_mind_is_not(commit: bool) -> None:
    decided = transactions.end(ongoing(), 7, 0, commit, NOW)
    for state in (decided, ended(commit)):
        assert transactions.end(state, 7, 0, commit, NOW) is state
        assert refusal(lambda state=state: transactions.end(state, 7, 0, not commit, NOW)) == Code.INVALID_TXN_STATE


def test_nothing_can_be_ended_before_it_began() -> None:
    assert refusal(lambda: transactions.end(fresh(), 7, 0, True, NOW)) == Code.INVALID_TXN_STATE


def test_nothing_can_be_added_between_decision_and_completion() -> None:
    decided = transactions.end(ongoing(), 7, 0, True, NOW)
    assert refusal(lambda: CALLS["add partitions"](decided, 7, 0)) == Code.CONCURRENT_TRANSACTIONS
    assert CALLS["add partitions"](ended(True), 7, 0).partitions == {PLACE}


def test_a_transaction_times_out_counted_from_its_beginning() -> None:
    state = ongoing()
    assert transactions.deadline(state) == NOW + TIMEOUT
    assert not transactions.has_timed_out(state, NOW + TIMEOUT - 1)
    assert transactions.has_timed_out(state, NOW + TIMEOUT)
    assert not transactions.has_timed_out(ended(True), NOW + TIMEOUT)


def test_only_idle_ids_are_forgotten() -> None:
    assert transactions.has_expired(ended(True), NOW + 10, 10)
    assert not transactions.has_expired(ended(True), NOW + 9, 10)
    assert not transactions.has_expired(ongoing(), NOW + 10, 10)
