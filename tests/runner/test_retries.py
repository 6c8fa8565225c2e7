"""A retry holds its own lane and nothing else."""

import asyncio

from octopus.outcomes import Retry
from octopus.testing import VirtualTime
from tests.runner.begun import OnStage, begin, submit
from tests.staged import P0, P1, record, records, turns


async def test_a_retry_holds_its_key_and_nothing_else(virtual_time: VirtualTime, on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="key", concurrency=10)
    assignment = begin(runner, [record(0, b"a"), record(1, b"a"), record(2, b"b"), record(3, b"b")])
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


async def test_a_retry_that_is_days_away_waits_for_days(virtual_time: VirtualTime, on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=2)
    begin(runner, records([0, 1]))
    await turns()
    await stage.end(0, outcome=Retry(float("inf")))
    await stage.end(1, outcome=Retry(300_000))
    await asyncio.sleep(290_000)
    assert len(stage.started) == 2
    await asyncio.sleep(11_000)
    assert stage.started[2:] == [(0, 1, 2)]


async def test_a_retry_the_handler_asked_for_does_not_count(virtual_time: VirtualTime, on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=1)
    begin(runner, records([0]))
    await turns()
    for after in (5.0, -1.0, float("nan")):
        await stage.end(0, outcome=Retry(after, counted=False))
        await asyncio.sleep(6)
    assert stage.started == [(0, 0, 1)] * 4


async def test_retries_that_fall_due_together_do_not_wait_for_each_other(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(ordering="partition", concurrency=10)
    for partition in (P0, P1):
        begin(runner, records([0], partition))
    await turns()
    for partition in (P0, P1):
        await stage.end(0, outcome=Retry(1.0), partition=partition)
    await asyncio.sleep(2)
    await turns()
    assert sorted(stage.started[2:]) == [(0, 0, 2), (1, 0, 2)]


async def test_records_of_another_partition_do_not_wait_for_a_retry(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(ordering="partition", concurrency=2)
    first, other = runner.open(P0, 0), runner.open(P1, 0)
    submit(runner, first, records([0]))
    await turns()
    await stage.end(0, outcome=Retry(1.0))
    asyncio.get_running_loop().call_at(1.0, submit, runner, other, records([0], P1))
    await asyncio.sleep(1.5)
    await turns()
    assert sorted(stage.started[1:]) == [(0, 0, 2), (1, 0, 1)]


async def test_a_driver_whose_records_come_again_by_themselves_keeps_the_lane_claimed(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="partition", concurrency=2, reschedule=False)
    assignment = begin(runner, records([0, 1]))
    await turns()
    await stage.end(0, outcome=Retry(0.0))
    await runner.quiet()
    assert stage.started == [(0, 0, 1)]
    assert assignment.ledger.committable == 0
