"""Assignments that come, drain, and are closed."""

import asyncio
import contextlib

import pytest

from octopus.errors import HandlerStopped
from octopus.events import StoredRecord, TopicPartition
from octopus.outcomes import DONE, Outcome, Retry
from octopus.testing import VirtualTime
from tests.runner.begun import OnStage, RunWith, begin, submit
from tests.staged import P0, P1, P2, records, turns, until


async def test_a_late_result_of_a_closed_assignment_settles_nothing(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=5)
    old = begin(runner, records(range(3)))
    await turns()
    await stage.end(0)
    old.close()
    await stage.end(1, 2)
    assert (old.ledger.settled_count, old.ledger.committable) == (1, 1)


async def test_a_late_result_leaves_the_next_assignment_of_the_partition_alone(run_with: RunWith) -> None:
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
    runner = run_with(stubborn, ordering="none", concurrency=5)
    old = begin(runner, records([0]))
    await turns()
    assert not await runner.drain([old], 0.01)
    runner.revoke([old])
    new = begin(runner, records([0, 1]))
    await turns()
    assert starts == [0], "a record does not run twice at once in one process"
    release.set()
    await until(lambda: not new.ledger.in_flight)
    assert starts == [0, 0, 1]
    assert (old.ledger.committable, new.ledger.committable) == (0, 2)


async def test_a_claim_that_outlives_its_assignment_does_not_stop_processing(run_with: RunWith) -> None:
    async def swallow(_: TopicPartition, stored: StoredRecord, attempt: int) -> Outcome:
        if stored.offset == 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return DONE

    runner = run_with(swallow, ordering="partition", concurrency=2)
    assignment = begin(runner, records(range(4)))
    await until(lambda: assignment.ledger.committable == 2)
    runner.revoke([assignment])
    following = begin(runner, records(range(2), P1))
    await until(lambda: following.ledger.committable == 2)
    assert (assignment.ledger.committable, runner.stopped.done()) == (2, False)


async def test_drain_starts_nothing_more_and_waits_for_what_runs(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=2)
    assignment = begin(runner, records(range(5)))
    await turns()
    draining = asyncio.create_task(runner.drain([assignment], 5.0))
    await turns()
    await stage.end(0)
    assert not draining.done()
    await stage.end(1)
    assert await draining
    assert stage.offsets == [0, 1]
    assert assignment.ledger.committable == 2


async def test_all_partitions_share_one_budget(virtual_time: VirtualTime, on_stage: OnStage) -> None:
    _, runner = on_stage(concurrency=3)
    assignments = [runner.open(partition, 0) for partition in (P0, P1, P2)]
    for assignment in assignments:
        submit(runner, assignment, records([0], assignment.partition))
    await turns()
    began = virtual_time.time()
    assert not await runner.drain(assignments, 3.0)
    assert virtual_time.time() - began == pytest.approx(3.0)


async def test_two_drains_of_one_assignment_both_end_with_its_last_record(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=3)
    assignment = begin(runner, records([0]))
    await turns()
    both = [asyncio.create_task(runner.drain([assignment], 60.0)) for _ in range(2)]
    await turns()
    await stage.end(0)
    assert await asyncio.wait_for(asyncio.gather(*both), 1) == [True, True]


async def test_a_stop_of_processing_does_not_keep_a_drain_waiting(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=3)
    assignment = begin(runner, records([0]))
    await turns()
    draining = asyncio.create_task(runner.drain([assignment], 60.0))
    await turns()
    await stage.fail(0, HandlerStopped("too much"))
    assert await asyncio.wait_for(draining, 1)
    assert assignment.ledger.committable == 0


async def test_a_retry_during_a_drain_is_left_to_the_next_owner(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=3)
    assignment = begin(runner, records([0]))
    await turns()
    draining = asyncio.create_task(runner.drain([assignment], 60.0))
    await turns()
    await stage.end(0, outcome=Retry(0.0))
    assert await asyncio.wait_for(draining, 1)
    assert (assignment.ledger.committable, runner.delayed) == (0, 0)


async def test_retries_and_queued_records_vanish_with_their_partition(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(ordering="none", concurrency=1)
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


async def test_a_slot_freed_by_a_revoked_handler_goes_to_those_who_wait(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="partition", concurrency=1)
    stuck, other = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, stuck, records([0]))
    await turns()
    submit(runner, other, records([0], P1))
    await turns()
    assert stage.started == [(0, 0, 1)]
    runner.revoke([stuck])
    await turns()
    assert stage.started == [(0, 0, 1), (1, 0, 1)]


async def test_records_submitted_to_a_closed_assignment_or_a_stopped_runner_are_ignored(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=3)
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


async def test_bytes_in_flight_remember_large_records_behind_small_ones(on_stage: OnStage) -> None:
    _, runner = on_stage(concurrency=1)
    assignment = runner.open(P0, 0)
    runner.submit(assignment, records(range(10)), 10, 10_000_000)
    runner.submit(assignment, records([10]), 11, 2)
    assert assignment.bytes_in_flight == pytest.approx(10_000_002, abs=20)
