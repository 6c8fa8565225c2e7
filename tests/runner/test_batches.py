"""Batches: full ones at once, the rest when their window is over."""

import asyncio

import pytest

from octopus.events import Batch, StoredRecord, TopicPartition
from octopus.outcomes import SKIPPED, Retry
from octopus.runner.lanes import BATCH_BYTES
from octopus.testing import VirtualTime
from octopus.types import BatchOutcome
from tests.runner.begun import OnStage, RunWith, begin, submit
from tests.staged import P0, record, records, turns, until


async def test_a_full_batch_runs_at_once_and_the_rest_when_its_window_is_over(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(concurrency=2, batch=3, within=5.0)
    assignment = begin(runner, records(range(4)))
    await turns()
    assert stage.batches == [[0, 1, 2]]
    await stage.end(0, outcome=BatchOutcome(records(range(3))))
    assert len(stage.batches) == 1
    assert not runner._slots.quiet.is_set(), "a batch that is filling is not quiet"
    await asyncio.sleep(5.1)
    assert stage.batches == [[0, 1, 2], [3]]
    assert assignment.ledger.committable == 3


async def test_a_window_that_ends_while_a_batch_runs_releases_the_next_one_at_once(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(concurrency=2, batch=3, within=1.0)
    assignment = begin(runner, records(range(3)))
    await turns()
    submit(runner, assignment, records([3]))
    await asyncio.sleep(10)
    assert stage.batches == [[0, 1, 2]]
    await stage.end(0, outcome=BatchOutcome(records(range(3))))
    assert stage.batches == [[0, 1, 2], [3]]


async def test_a_window_of_nothing_does_not_spin_while_a_batch_runs(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=2, batch=3, within=0.0)
    assignment = begin(runner, records([0]))
    await until(lambda: stage.batches)
    submit(runner, assignment, records([1]))
    loop = asyncio.get_running_loop()
    calls, call_later = [], loop.call_later
    loop.call_later = lambda *arguments: calls.append(arguments) or call_later(*arguments)  # type: ignore[method-assign]
    await turns(50)
    del loop.call_later
    assert calls == []
    await stage.end(0, outcome=BatchOutcome([record(0)]))
    assert stage.batches == [[0], [1]]


async def test_only_what_is_to_be_retried_of_a_batch_runs_again(virtual_time: VirtualTime, on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=1, batch=3)
    assignment = begin(runner, records(range(3)))
    await turns()
    again = Retry(2.0, ValueError("busy"))
    await stage.end(0, outcome=BatchOutcome(records(range(3)), {1: again, 2: SKIPPED}, again))
    assert assignment.ledger.committable == 1
    await asyncio.sleep(3)
    assert stage.batches == [[0, 1, 2], [1]]
    assert stage.started[-1] == (0, 1, 2)
    await stage.end(1, outcome=BatchOutcome([record(1)]))
    assert assignment.ledger.committable == 3


async def test_a_batch_that_is_filling_when_its_partition_goes_is_never_run(
    virtual_time: VirtualTime, on_stage: OnStage
) -> None:
    stage, runner = on_stage(concurrency=1, batch=10, within=1.0)
    assignment = begin(runner, records(range(3)))
    assert await runner.drain([assignment], 5.0)
    assert assignment.ledger.committable == 0
    runner.revoke([assignment])
    await asyncio.sleep(10)
    assert stage.batches == []
    await asyncio.wait_for(runner.quiet(), 1)


@pytest.mark.parametrize(
    ("size_bytes", "full"),
    [
        (100, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (BATCH_BYTES // 4, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (3 * BATCH_BYTES, [[0], [1]]),
    ],
    ids=["small records", "a quarter of a batch each", "larger than a batch"],
)
@pytest.mark.parametrize("is_counted_alone", [False, True], ids=["on average", "one by one"])
async def test_a_batch_is_full_when_it_has_enough_bytes(
    virtual_time: VirtualTime, on_stage: OnStage, size_bytes: int, full: list[list[int]], is_counted_alone: bool
) -> None:
    stage, runner = on_stage(concurrency=1, batch=8, within=60.0)
    given = [record(offset, value=bytes(size_bytes)) for offset in range(9)]
    assignment = runner.open(P0, 0)
    if is_counted_alone:  # as records are that are far larger than others
        assignment.large.update(dict.fromkeys(range(9), size_bytes))
    runner.submit(assignment, given, 9, 0 if is_counted_alone else 9 * size_bytes)
    for batch in full:
        await until(lambda: stage.running[P0])
        await stage.end(batch[0], outcome=BatchOutcome([record(offset) for offset in batch]))
    assert stage.batches[: len(full)] == full
    await asyncio.sleep(61)
    assert sum(map(len, stage.batches)) <= 9


async def test_batches_that_are_done_count_as_quick(virtual_time: VirtualTime, run_with: RunWith) -> None:
    async def run(partition: TopicPartition, stored: StoredRecord, attempt: int) -> BatchOutcome:
        assert isinstance(stored, Batch)
        return BatchOutcome(stored)

    runner = run_with(run, concurrency=1, batch=2)
    assert runner.suspends
    begin(runner, records(range(8)))
    await runner.quiet()
    assert not runner.suspends
