"""The runner by itself: order, concurrency, retries, assignments, endings."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from octopus.errors import HandlerStopped
from octopus.events import Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Outcome, Retry
from octopus.routing import Ordering
from octopus.runner import Assignment, Runner
from octopus.runner.commit_metadata import decode_map, encode_map
from octopus.runner.slot import YIELD_AFTER
from octopus.testing import VirtualTime
from octopus.types import BatchOutcome, RunClaim, in_turn
from tests.staged import P0, P1, P2, Stage, record, records, turns, unread, until


class Plain:
    """An application made of one function."""

    def __init__(self, function: Callable[[TopicPartition, StoredRecord, int], Awaitable[Outcome]]) -> None:
        self._function = function

    def bind(self, partition: TopicPartition) -> RunClaim:
        async def run(stored: StoredRecord, attempt: int) -> Outcome:
            return await self._function(partition, stored, attempt)

        return in_turn(run)


@pytest.fixture
async def virtual_time() -> Any:
    with VirtualTime().installed(asyncio.get_running_loop()) as clock:
        yield clock


@pytest.fixture(autouse=True, params=[False, True], ids=["read", "unread"])
def handed_over_unread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test twice: with records that were read, and with those that are when their turn comes."""
    monkeypatch.setitem(HANDED_OVER, "unread", request.param)


HANDED_OVER = {"unread": False}


def submit(runner: Runner, assignment: Assignment, given: list[Record]) -> None:
    consecutive = given[-1].offset - given[0].offset + 1 == len(given)
    handed_over = unread(given) if HANDED_OVER["unread"] and consecutive else given
    runner.submit(assignment, handed_over, given[-1].offset + 1, sum(len(each.value or b"") for each in given))


# ── commit safety ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [0, 17], ids=["a log from 0", "a truncated log"])
async def test_the_committable_offset_stays_at_a_first_record_that_hangs(first: int) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=20)
    assignment = runner.open(P0, first)
    submit(runner, assignment, records(range(first, first + 20)))
    await until(lambda: len(stage.started) == 20)
    await stage.end(*range(first + 1, first + 20))
    assert assignment.ledger.committable == first
    await stage.end(first)
    assert assignment.ledger.committable == first + 20
    await runner.close()


async def test_with_a_thousand_in_flight_no_sample_passes_an_unfinished_record() -> None:
    stage, chance = Stage(), random.Random(1)
    runner = Runner(stage, ordering="none", concurrency=1000)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(1000)))
    await until(lambda: len(stage.started) == 1000)
    unfinished = set(range(1000))
    while unfinished:
        some = chance.sample(sorted(unfinished), min(len(unfinished), 37))
        await stage.end(*some)
        unfinished.difference_update(some)
        assert assignment.ledger.committable == min(unfinished, default=1000)
    await runner.close()


async def test_gaps_do_not_hold_the_committable_offset_back() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=10)
    assignment = runner.open(P0, 0)
    runner.submit(assignment, records([3, 7, 40]), 55, 6)
    await until(lambda: len(stage.started) == 3)
    await stage.end(7, 40)
    assert assignment.ledger.committable == 3
    await stage.end(3)
    assert assignment.ledger.committable == 55
    runner.submit(assignment, [], 90, 0)  # a fetch of nothing but control records
    assert assignment.ledger.committable == 90
    await runner.close()


async def test_records_that_are_all_filtered_out_move_the_committable_offset() -> None:
    async def skip(*_: object) -> Outcome:
        return SKIPPED

    runner = Runner(Plain(skip), concurrency=4)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(1000)))
    await runner.quiet()
    assert assignment.ledger.committable == 1000
    assert assignment.skipped == 1000
    await runner.close()


async def test_a_dead_letter_settles_and_is_counted() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=1)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0]))
    await turns()
    await stage.end(0, outcome=DeadLetter("no"))
    assert (assignment.ledger.committable, assignment.dead_lettered) == (1, 1)
    await runner.close()


async def test_what_an_earlier_owner_settled_is_not_run_again() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=10)
    assignment = runner.open(P0, 2, [(4, 5), (7, 7)])
    submit(runner, assignment, records(range(2, 9)))
    await until(lambda: len(stage.started) == 4)
    assert sorted(stage.offsets) == [2, 3, 6, 8]
    await stage.end(2, 3)
    assert assignment.ledger.committable == 6
    await runner.close()


# ── order and concurrency ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_partition_order_runs_one_record_after_the_other_and_partitions_side_by_side() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="partition", concurrency=10)
    for partition in (P0, P1, P2):
        submit(runner, runner.open(partition, 0), records(range(3), partition))
    await turns()
    assert sorted(stage.started) == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    await stage.end(0, partition=P1)
    assert stage.started[-1] == (1, 1, 1)
    await runner.close()


async def test_key_order_holds_back_the_successors_of_a_slow_key_only() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="key", concurrency=100)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, [record(offset, b"slow" if offset % 2 else b"%d" % offset) for offset in range(40)])
    await until(lambda: len(stage.started) == 21)
    assert [offset for offset in stage.offsets if offset % 2] == [1]
    await stage.end(1)
    assert stage.offsets[-1] == 3
    await runner.close()


async def test_no_more_handlers_run_than_the_concurrency_allows() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=7)
    submit(runner, runner.open(P0, 0), records(range(50)))
    await turns(50)
    assert len(stage.started) == 7
    await stage.end(3)
    assert len(stage.started) == 8
    await runner.close()


async def test_a_partition_with_endless_work_does_not_keep_the_others_waiting() -> None:
    seen: list[int] = []

    async def slow(partition: TopicPartition, _stored: StoredRecord, _attempt: int) -> Outcome:
        time.sleep(0.0005)
        seen.append(partition.partition)
        return DONE

    runner = Runner(Plain(slow), ordering="none", concurrency=1)
    busy, quick = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, busy, records(range(2000)))
    submit(runner, quick, records(range(3), P1))
    await until(lambda: 1 in seen)
    assert len(seen) < 300
    await runner.close()


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
@pytest.mark.parametrize("takes", [1e-6, 20e-6, 100e-6, 700e-6, 0.003, 0.1])
async def test_a_handler_that_never_suspends_lets_the_loop_turn(
    virtual_time: VirtualTime, takes: float, ordering: Ordering
) -> None:
    ran = 0

    async def compute(*_: object) -> Outcome:
        nonlocal ran
        ran += 1
        virtual_time.pass_by(takes)
        return DONE

    runner = Runner(Plain(compute), ordering=ordering, concurrency=1)
    submit(runner, runner.open(P0, 0), records(range(20_000)))
    longest = 0.0
    while ran < 20_000:
        before = virtual_time.time()
        await asyncio.sleep(0)
        longest = max(longest, virtual_time.time() - before)
    assert YIELD_AFTER <= longest < 1.5 * YIELD_AFTER + 2 * takes
    await runner.close()


async def test_a_handler_that_suspends_is_not_made_to_wait_for_the_loop_again() -> None:
    turn = 0

    async def nap(*_: object) -> Outcome:
        await asyncio.sleep(0.0005)
        return DONE

    runner = Runner(Plain(nap), ordering="none", concurrency=50)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(2000)))
    while assignment.ledger.in_flight:
        await asyncio.sleep(0)
        turn += 1
    assert assignment.ledger.committable == 2000
    await runner.close()


# ── retries ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_retry_holds_its_key_and_nothing_else(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="key", concurrency=10)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, [record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"b")])
    await turns()
    await stage.end(0, outcome=Retry(60.0, ValueError("not yet")))
    await stage.end(2)
    await stage.end(3)
    assert stage.started == [(0, 0, 1), (0, 2, 1), (0, 3, 1)]
    assert (runner.delayed, runner.next_due) == (1, 60.0)
    await asyncio.sleep(61)
    assert stage.started[-1] == (0, 0, 2)
    await stage.end(0)
    assert stage.started[-1] == (0, 1, 1)
    assert assignment.retried == 1
    await runner.close()


async def test_a_retry_that_is_days_away_waits_for_days(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=2)
    submit(runner, runner.open(P0, 0), records([0, 1]))
    await turns()
    await stage.end(0, outcome=Retry(float("inf")))
    await stage.end(1, outcome=Retry(300_000))
    await asyncio.sleep(290_000)
    assert len(stage.started) == 2
    await asyncio.sleep(11_000)
    assert stage.started[2:] == [(0, 1, 2)]
    await runner.close()


async def test_a_retry_the_handler_asked_for_does_not_count(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=1)
    submit(runner, runner.open(P0, 0), records([0]))
    await turns()
    for after in (5.0, -1.0, float("nan")):
        await stage.end(0, outcome=Retry(after, counted=False))
        await asyncio.sleep(6)
    assert stage.started == [(0, 0, 1)] * 4
    await runner.close()


async def test_retries_that_fall_due_together_do_not_wait_for_each_other(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="partition", concurrency=10)
    for partition in (P0, P1):
        submit(runner, runner.open(partition, 0), records([0], partition))
    await turns()
    for partition in (P0, P1):
        await stage.end(0, outcome=Retry(1.0), partition=partition)
    await asyncio.sleep(2)
    await turns()
    assert sorted(stage.started[2:]) == [(0, 0, 2), (1, 0, 2)]
    await runner.close()


async def test_records_of_another_partition_do_not_wait_for_a_retry(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="partition", concurrency=2)
    first, other = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, first, records([0]))
    await turns()
    await stage.end(0, outcome=Retry(1.0))
    asyncio.get_running_loop().call_at(1.0, submit, runner, other, records([0], P1))
    await asyncio.sleep(1.5)
    await turns()
    assert sorted(stage.started[1:]) == [(0, 0, 2), (1, 0, 1)]
    await runner.close()


async def test_a_driver_whose_records_come_again_by_themselves_keeps_the_lane_claimed() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="partition", concurrency=2, reschedule=False)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0, 1]))
    await turns()
    await stage.end(0, outcome=Retry(0.0))
    await runner.quiet()
    assert stage.started == [(0, 0, 1)]
    assert assignment.ledger.committable == 0
    await runner.close()


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_full_batch_runs_at_once_and_the_rest_when_its_window_is_over(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=2, batch=3, within=5.0)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(4)))
    await turns()
    assert stage.batches == [[0, 1, 2]]
    await stage.end(0, outcome=BatchOutcome([(each, DONE) for each in records(range(3))]))
    assert len(stage.batches) == 1
    assert not runner._quiet.is_set(), "a batch that is filling is not quiet"
    await asyncio.sleep(5.1)
    assert stage.batches == [[0, 1, 2], [3]]
    assert assignment.ledger.committable == 3
    await runner.close()


async def test_a_window_that_ends_while_a_batch_runs_releases_the_next_one_at_once(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=2, batch=3, within=1.0)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(3)))
    await turns()
    submit(runner, assignment, records([3]))
    await asyncio.sleep(10)
    assert stage.batches == [[0, 1, 2]]
    await stage.end(0, outcome=BatchOutcome([(each, DONE) for each in records(range(3))]))
    assert stage.batches == [[0, 1, 2], [3]]
    await runner.close()


async def test_a_window_of_nothing_does_not_spin_while_a_batch_runs() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=2, batch=3, within=0.0)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0]))
    await until(lambda: stage.batches)
    submit(runner, assignment, records([1]))
    loop = asyncio.get_running_loop()
    calls, call_later = [], loop.call_later
    loop.call_later = lambda *arguments: calls.append(arguments) or call_later(*arguments)  # type: ignore[method-assign]
    await turns(50)
    del loop.call_later
    assert calls == []
    await stage.end(0, outcome=BatchOutcome([(record(0), DONE)]))
    assert stage.batches == [[0], [1]]
    await runner.close()


async def test_only_what_is_to_be_retried_of_a_batch_runs_again(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=1, batch=3)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(3)))
    await turns()
    again = Retry(2.0, ValueError("busy"))
    await stage.end(0, outcome=BatchOutcome([(record(0), DONE), (record(1), again), (record(2), SKIPPED)], again))
    assert assignment.ledger.committable == 1
    await asyncio.sleep(3)
    assert stage.batches == [[0, 1, 2], [1]]
    assert stage.started[-1] == (0, 1, 2)
    await stage.end(1, outcome=BatchOutcome([(record(1), DONE)]))
    assert assignment.ledger.committable == 3
    await runner.close()


async def test_a_batch_that_is_filling_when_its_partition_goes_is_never_run(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=1, batch=10, within=1.0)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(3)))
    assert await runner.drain([assignment], 5.0)
    assert assignment.ledger.committable == 0
    runner.revoke([assignment])
    await asyncio.sleep(10)
    assert stage.batches == []
    await asyncio.wait_for(runner.quiet(), 1)
    await runner.close()


# ── assignments ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_late_result_of_a_closed_generation_settles_nothing() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=5)
    old = runner.open(P0, 0)
    submit(runner, old, records(range(3)))
    await turns()
    await stage.end(0)
    old.close()
    await stage.end(1, 2)
    assert (old.ledger.settled_count, old.ledger.committable) == (1, 1)
    await runner.close()


async def test_a_late_result_leaves_the_next_generation_of_the_partition_alone() -> None:
    async def stubborn(_partition: TopicPartition, stored: StoredRecord, _attempt: int) -> Outcome:
        starts.append(stored.offset)
        if len(starts) == 1:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await release.wait()  # clean-up that takes its time, and then even succeeds
        return DONE

    starts: list[int] = []
    release = asyncio.Event()
    runner = Runner(Plain(stubborn), ordering="none", concurrency=5)
    old = runner.open(P0, 0)
    submit(runner, old, records([0]))
    await turns()
    assert not await runner.drain([old], 0.01)
    runner.revoke([old])
    new = runner.open(P0, 0)
    submit(runner, new, records([0, 1]))
    await turns()
    assert starts == [0], "a record does not run twice at once in one process"
    release.set()
    await until(lambda: not new.ledger.in_flight)
    assert starts == [0, 0, 1]
    assert (old.ledger.committable, new.ledger.committable) == (0, 2)
    await runner.close()


async def test_a_stretch_that_outlives_its_generation_leaves_the_line_running() -> None:
    async def swallow(_: TopicPartition, stored: StoredRecord, attempt: int) -> Outcome:
        if stored.offset == 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return DONE

    runner = Runner(Plain(swallow), ordering="partition", concurrency=2)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(4)))
    await until(lambda: assignment.ledger.committable == 2)
    runner.revoke([assignment])
    submit(runner, following := runner.open(P1, 0), records(range(2), P1))
    await until(lambda: following.ledger.committable == 2)
    assert (assignment.ledger.committable, runner.stopped.done()) == (2, False)
    await runner.close()


async def test_drain_starts_nothing_more_and_waits_for_what_runs() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=2)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(5)))
    await turns()
    draining = asyncio.create_task(runner.drain([assignment], 5.0))
    await turns()
    await stage.end(0)
    assert not draining.done()
    await stage.end(1)
    assert await draining
    assert stage.offsets == [0, 1]
    assert assignment.ledger.committable == 2
    await runner.close()


async def test_all_partitions_share_one_budget(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=3)
    assignments = [runner.open(partition, 0) for partition in (P0, P1, P2)]
    for assignment in assignments:
        submit(runner, assignment, records([0], assignment.partition))
    await turns()
    began = virtual_time.time()
    assert not await runner.drain(assignments, 3.0)
    assert virtual_time.time() - began == pytest.approx(3.0)
    await runner.close()


async def test_two_drains_of_one_generation_both_end_with_its_last_record() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=3)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0]))
    await turns()
    both = [asyncio.create_task(runner.drain([assignment], 60.0)) for _ in range(2)]
    await turns()
    await stage.end(0)
    assert await asyncio.wait_for(asyncio.gather(*both), 1) == [True, True]
    await runner.close()


async def test_a_line_that_stops_while_it_drains_does_not_keep_the_drain_waiting() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=3)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0]))
    await turns()
    draining = asyncio.create_task(runner.drain([assignment], 60.0))
    await turns()
    await stage.fail(0, HandlerStopped("too much"))
    assert await asyncio.wait_for(draining, 1)
    assert assignment.ledger.committable == 0
    await runner.close()


async def test_a_retry_during_a_drain_is_left_to_the_next_owner() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=3)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0]))
    await turns()
    draining = asyncio.create_task(runner.drain([assignment], 60.0))
    await turns()
    await stage.end(0, outcome=Retry(0.0))
    assert await asyncio.wait_for(draining, 1)
    assert (assignment.ledger.committable, runner.delayed) == (0, 0)
    await runner.close()


async def test_retries_and_queued_records_vanish_with_their_partition(virtual_time: VirtualTime) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=1)
    lost, kept = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, lost, records(range(4)))
    await turns()
    await stage.end(0, outcome=Retry(5.0))
    runner._loop.call_later(6.0, lambda: None)
    await asyncio.sleep(5.5)  # due, but the only lane is busy with record 1
    assert runner.delayed == 1
    runner.revoke([lost])
    assert runner.delayed == 0
    submit(runner, kept, records([0], P1))
    await asyncio.sleep(60)
    assert stage.started == [(0, 0, 1), (0, 1, 1), (1, 0, 1)]
    assert stage.cancelled == [1]
    await runner.close()


async def test_a_lane_freed_by_a_revoked_handler_goes_to_those_who_wait() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="partition", concurrency=1)
    stuck, other = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, stuck, records([0]))
    await turns()
    submit(runner, other, records([0], P1))
    await turns()
    assert stage.started == [(0, 0, 1)]
    runner.revoke([stuck])
    await turns()
    assert stage.started == [(0, 0, 1), (1, 0, 1)]
    await runner.close()


async def test_records_submitted_to_a_closed_generation_or_a_stopped_line_are_ignored() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=3)
    closed, open_one = runner.open(P0, 0), runner.open(P1, 0)
    closed.close()
    submit(runner, closed, records([0]))
    submit(runner, open_one, records([0, 1], P1))
    await turns()
    await stage.fail(0, HandlerStopped("enough"), P1)
    submit(runner, open_one, records([2], P1))
    await turns()
    assert stage.started == [(1, 0, 1)]
    assert open_one.ledger.position == 2
    assert str(runner.stopped.result()) == "enough"
    await runner.close()


async def test_bytes_in_flight_remember_large_records_behind_small_ones() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=1)
    assignment = runner.open(P0, 0)
    runner.submit(assignment, records(range(10)), 10, 10_000_000)
    runner.submit(assignment, records([10]), 11, 2)
    assert assignment.bytes_in_flight == pytest.approx(10_000_002, abs=20)
    await runner.close()


# ── endings ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Fatal(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [HandlerStopped("stop"), MemoryError("none left"), Fatal("odd"), GeneratorExit("gone")], ids=repr
)
async def test_what_is_no_failure_stops_the_line_and_settles_nothing(error: BaseException) -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=2)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(10)))
    await turns()
    await stage.fail(0, error)
    await stage.end(1)
    reason = runner.stopped.result()
    assert reason is error or reason.__cause__ is error
    assert assignment.ledger.committable == 0
    assert stage.offsets == [0, 1]
    await runner.close()


async def test_a_retry_that_ends_after_the_line_stopped_is_not_started() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=2)
    submit(runner, runner.open(P0, 0), records(range(2)))
    await turns()
    await stage.fail(0, HandlerStopped("enough"))
    await stage.end(1, outcome=Retry(0.0))
    await asyncio.sleep(0.01)
    assert stage.offsets == [0, 1]
    await runner.close()


async def test_a_record_whose_task_somebody_else_cancelled_runs_again(virtual_time: VirtualTime) -> None:
    attempts = []

    async def cancels_itself(_partition: TopicPartition, _stored: StoredRecord, attempt: int) -> Outcome:
        attempts.append(attempt)
        if len(attempts) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
        return DONE

    runner = Runner(Plain(cancels_itself), concurrency=1)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0]))
    await until(lambda: assignment.ledger.committable == 1)
    assert attempts == [1, 2]
    await runner.close()


async def test_close_cancels_what_runs_and_settles_nothing_of_it() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=3)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(9)))
    await turns()
    assert [(str(each.partition), stored.offset) for each, stored, _ in runner.running] == [
        ("t[0]", 0),
        ("t[0]", 1),
        ("t[0]", 2),
    ]
    assert await runner.close()
    assert stage.cancelled == [0, 1, 2]
    assert assignment.ledger.committable == 0
    assert runner.running == []


async def test_close_ends_although_a_handler_swallows_its_cancellation_and_does_not_call_that_done() -> None:
    async def swallow(*_: object) -> Outcome:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return DONE

    runner = Runner(Plain(swallow), ordering="none", concurrency=1)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(9)))
    await turns()
    assert await asyncio.wait_for(runner.close(), 1)
    assert assignment.ledger.committable == 0


async def test_what_is_cancelled_with_everything_else_is_not_done_whatever_its_handler_makes_of_it() -> None:
    async def swallow(*_: object) -> Outcome:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return DONE

    settled: list[int] = []

    async def drive() -> None:
        runner = Runner(Plain(swallow), ordering="none", concurrency=1)
        assignment = runner.open(P0, 0)
        submit(runner, assignment, records(range(9)))
        try:
            await asyncio.sleep(3600)
        finally:
            await turns()
            settled.append(assignment.ledger.committable)
            await runner.close()

    before = asyncio.all_tasks()
    asyncio.create_task(drive())  # noqa: RUF006 - waited for below
    await turns()
    everything = asyncio.all_tasks() - before
    for task in everything:  # as `asyncio.run` does at its end
        task.cancel()
    await asyncio.wait(everything)
    assert settled == [0]


async def test_close_does_not_wait_for_ever_for_a_handler_that_will_not_go(virtual_time: VirtualTime) -> None:
    async def stay(*_: object) -> Outcome:
        while not enough:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return DONE

    enough: list[bool] = []
    runner = Runner(Plain(stay), concurrency=1)
    submit(runner, runner.open(P0, 0), records([0]))
    await turns()
    assert not await runner.close()
    enough.append(True)
    await asyncio.sleep(7200)


async def test_quiet_and_eased_tell_a_driver_when_to_go_on() -> None:
    stage = Stage()
    runner = Runner(stage, concurrency=3)
    await asyncio.wait_for(runner.quiet(), 1)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records([0, 1]))
    easing = asyncio.create_task(runner.wait_for_demand(10.0))
    await turns()
    assert not easing.done()
    await stage.end(0)
    await stage.end(1)
    await asyncio.wait_for(easing, 1)
    await asyncio.wait_for(runner.quiet(), 1)
    await asyncio.wait_for(runner.wait_for_demand(0.01), 1)
    assert not assignment.has_progress or assignment.ledger.committable == 2
    await runner.close()


async def test_a_commit_says_something_new_only_after_progress() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=3)
    assignment = runner.open(P0, 0)
    assignment.note_committed(0)
    submit(runner, assignment, records(range(3)))
    await turns()
    assert not assignment.has_progress
    await stage.end(1)
    assert assignment.has_progress
    assignment.note_committed(0, 1)
    assert not assignment.has_progress
    await stage.end(2)
    assert assignment.has_progress
    await runner.close()


async def test_the_map_of_a_commit_brings_back_what_is_unfinished_only() -> None:
    stage = Stage()
    runner = Runner(stage, ordering="none", concurrency=10)
    assignment = runner.open(P0, 0)
    submit(runner, assignment, records(range(10)))
    await turns(40)
    await stage.end(0, 2, 3, 9)
    ledger = assignment.ledger
    metadata = encode_map(ledger.committable, ledger.settled_ahead())
    await runner.close()

    again = Stage()
    runner = Runner(again, ordering="none", concurrency=10)
    submit(runner, runner.open(P0, 1, decode_map(1, metadata)), records(range(1, 10)))
    await turns(40)
    assert sorted(again.offsets) == [1, 4, 5, 6, 7, 8]
    await runner.close()
