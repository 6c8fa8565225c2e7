"""How running ends: processing stops, tasks are cancelled, the runner is closed."""

import asyncio
import contextlib

import pytest

from octopus.errors import HandlerStopped
from octopus.events import StoredRecord, TopicPartition
from octopus.outcomes import DONE, Outcome, Retry
from octopus.runner import Runner
from octopus.testing import VirtualTime
from tests.runner.begun import OnStage, Plain, RunWith, begin, submit
from tests.staged import P0, records, turns, until


class Fatal(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [HandlerStopped("stop"), MemoryError("none left"), Fatal("odd"), GeneratorExit("gone")], ids=repr
)
async def test_what_is_no_failure_stops_processing_and_settles_nothing(error: BaseException, on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=2)
    assignment = begin(runner, records(range(10)))
    await turns()
    await stage.fail(0, error)
    await stage.end(1)
    reason = runner.stopped.result()
    assert reason is error or reason.__cause__ is error
    assert assignment.ledger.committable == 0
    assert stage.offsets == [0, 1]


async def test_a_retry_that_ends_after_processing_stopped_is_not_started(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(ordering="none", concurrency=2)
    begin(runner, records(range(2)))
    await turns()
    await stage.fail(0, HandlerStopped("enough"))
    await stage.end(1, outcome=Retry(0.0))
    await asyncio.sleep(3600)
    assert stage.offsets == [0, 1]


async def test_a_record_whose_task_somebody_else_cancelled_runs_again(
    virtual_time: VirtualTime, run_with: RunWith
) -> None:
    attempts = []

    async def cancels_itself(_partition: TopicPartition, _stored: StoredRecord, attempt: int) -> Outcome:
        attempts.append(attempt)
        if len(attempts) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
        return DONE

    runner = run_with(cancels_itself, concurrency=1)
    assignment = begin(runner, records([0]))
    await until(lambda: assignment.ledger.committable == 1)
    assert attempts == [1, 2]


async def test_close_cancels_what_runs_and_settles_nothing_of_it(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=3)
    assignment = begin(runner, records(range(9)))
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


async def test_close_ends_although_a_handler_swallows_its_cancellation_and_does_not_call_that_done(
    run_with: RunWith,
) -> None:
    async def swallow(*_: object) -> Outcome:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return DONE

    runner = run_with(swallow, ordering="none", concurrency=1)
    assignment = begin(runner, records(range(9)))
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


async def test_close_does_not_wait_for_ever_for_a_handler_that_will_not_go(
    virtual_time: VirtualTime, run_with: RunWith
) -> None:
    async def stay(*_: object) -> Outcome:
        while not enough:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return DONE

    enough: list[bool] = []
    runner = run_with(stay, concurrency=1)
    begin(runner, records([0]))
    await turns()
    assert not await runner.close()
    enough.append(True)
    await asyncio.sleep(7200)
