"""Which records run side by side, which one after the other, and when the loop has its turn."""

import asyncio
import time

import pytest

from octopus.events import StoredRecord, TopicPartition
from octopus.outcomes import DONE, Outcome
from octopus.routing import Ordering
from octopus.runner.pacing import YIELD_AFTER
from octopus.testing import VirtualTime
from tests.runner.begun import OnStage, RunWith, begin, submit
from tests.staged import P0, P1, P2, record, records, turns, until


async def test_partition_order_runs_one_record_after_the_other_and_partitions_side_by_side(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="partition", concurrency=10)
    for partition in (P0, P1, P2):
        begin(runner, records(range(3), partition))
    await turns()
    assert sorted(stage.started) == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    await stage.end(0, partition=P1)
    assert stage.started[-1] == (1, 1, 1)


async def test_key_order_holds_back_the_successors_of_a_slow_key_only(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="key", concurrency=100)
    begin(runner, [record(offset, b"slow" if offset % 2 else b"%d" % offset) for offset in range(40)])
    await until(lambda: len(stage.started) == 21)
    assert [offset for offset in stage.offsets if offset % 2] == [1]
    await stage.end(1)
    assert stage.offsets[-1] == 3


async def test_no_more_handlers_run_than_the_concurrency_allows(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=7)
    begin(runner, records(range(50)))
    await turns(50)
    assert len(stage.started) == 7
    await stage.end(3)
    assert len(stage.started) == 8


async def test_a_partition_with_endless_work_does_not_keep_the_others_waiting(run_with: RunWith) -> None:
    seen: list[int] = []

    async def slow(partition: TopicPartition, _stored: StoredRecord, _attempt: int) -> Outcome:
        time.sleep(0.0005)
        seen.append(partition.partition)
        return DONE

    runner = run_with(slow, ordering="none", concurrency=1)
    busy, quick = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, busy, records(range(2000)))
    submit(runner, quick, records(range(3), P1))
    await until(lambda: 1 in seen)
    assert len(seen) < 300


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
@pytest.mark.parametrize("takes", [1e-6, 20e-6, 100e-6, 700e-6, 0.003, 0.1])
async def test_a_handler_that_never_suspends_lets_the_loop_turn(
    virtual_time: VirtualTime, takes: float, ordering: Ordering, run_with: RunWith
) -> None:
    ran, count = 0, max(1000, round(4 * YIELD_AFTER / takes))

    async def compute(*_: object) -> Outcome:
        nonlocal ran
        ran += 1
        virtual_time.pass_by(takes)
        return DONE

    runner = run_with(compute, ordering=ordering, concurrency=1)
    begin(runner, records(range(count)))
    longest = 0.0
    while ran < count:
        before = virtual_time.time()
        await asyncio.sleep(0)
        longest = max(longest, virtual_time.time() - before)
    assert YIELD_AFTER <= longest < 1.5 * YIELD_AFTER + 2 * takes


async def test_a_handler_that_suspends_is_not_made_to_wait_for_the_loop_again(run_with: RunWith) -> None:
    turn = 0

    async def nap(*_: object) -> Outcome:
        await asyncio.sleep(0.0005)
        return DONE

    runner = run_with(nap, ordering="none", concurrency=50)
    assignment = begin(runner, records(range(2000)))
    while assignment.ledger.in_flight:
        await asyncio.sleep(0)
        turn += 1
    assert assignment.ledger.committable == 2000


async def test_quiet_and_demand_tell_a_driver_when_to_go_on(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=3)
    await asyncio.wait_for(runner.quiet(), 1)
    assignment = begin(runner, records([0, 1]))
    easing = asyncio.create_task(runner.wait_for_demand(10.0))
    await turns()
    assert not easing.done()
    await stage.end(0)
    await stage.end(1)
    await asyncio.wait_for(easing, 1)
    await asyncio.wait_for(runner.quiet(), 1)
    await asyncio.wait_for(runner.wait_for_demand(0.01), 1)
    assert not assignment.has_progress or assignment.ledger.committable == 2
