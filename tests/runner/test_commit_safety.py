"""Nothing is committable before everything received ahead of it is settled, in whatever order records end."""

import random

import pytest

from octopus.outcomes import SKIPPED, DeadLetter, Outcome
from octopus.runner.commit_metadata import decode_map, encode_map
from tests.runner.begun import OnStage, RunWith, begin, submit
from tests.staged import P0, records, turns, until


@pytest.mark.parametrize("first", [0, 17], ids=["a log from 0", "a truncated log"])
async def test_the_committable_offset_stays_at_a_first_record_that_hangs(first: int, on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=20)
    assignment = begin(runner, records(range(first, first + 20)))
    await until(lambda: len(stage.started) == 20)
    await stage.end(*range(first + 1, first + 20))
    assert assignment.ledger.committable == first
    await stage.end(first)
    assert assignment.ledger.committable == first + 20


async def test_with_a_thousand_in_flight_no_sample_passes_an_unfinished_record(on_stage: OnStage) -> None:
    chance = random.Random(1)
    stage, runner = on_stage(ordering="none", concurrency=1000)
    assignment = begin(runner, records(range(1000)))
    await until(lambda: len(stage.started) == 1000)
    unfinished = set(range(1000))
    while unfinished:
        some = chance.sample(sorted(unfinished), min(len(unfinished), 37))
        await stage.end(*some)
        unfinished.difference_update(some)
        assert assignment.ledger.committable == min(unfinished, default=1000)


async def test_gaps_do_not_hold_the_committable_offset_back(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=10)
    assignment = runner.open(P0, 0)
    runner.submit(assignment, records([3, 7, 40]), 55, 6)
    await until(lambda: len(stage.started) == 3)
    await stage.end(7, 40)
    assert assignment.ledger.committable == 3
    await stage.end(3)
    assert assignment.ledger.committable == 55
    runner.submit(assignment, [], 90, 0)  # a fetch of nothing but control records
    assert assignment.ledger.committable == 90


async def test_records_that_are_all_filtered_out_move_the_committable_offset(run_with: RunWith) -> None:
    async def skip(*_: object) -> Outcome:
        return SKIPPED

    runner = run_with(skip, concurrency=4)
    assignment = begin(runner, records(range(1000)))
    await runner.quiet()
    assert assignment.ledger.committable == 1000
    assert assignment.skipped == 1000


async def test_a_dead_letter_settles_and_is_counted(on_stage: OnStage) -> None:
    stage, runner = on_stage(concurrency=1)
    assignment = begin(runner, records([0]))
    await turns()
    await stage.end(0, outcome=DeadLetter("no"))
    assert (assignment.ledger.committable, assignment.dead_lettered) == (1, 1)


async def test_what_an_earlier_owner_settled_is_not_run_again(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=10)
    assignment = runner.open(P0, 2, [(4, 5), (7, 7)])
    submit(runner, assignment, records(range(2, 9)))
    await until(lambda: len(stage.started) == 4)
    assert sorted(stage.offsets) == [2, 3, 6, 8]
    await stage.end(2, 3)
    assert assignment.ledger.committable == 6


async def test_a_commit_says_something_new_only_after_progress(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=3)
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


async def test_the_map_of_a_commit_brings_back_what_is_unfinished_only(on_stage: OnStage) -> None:
    stage, runner = on_stage(ordering="none", concurrency=10)
    assignment = begin(runner, records(range(10)))
    await turns(40)
    await stage.end(0, 2, 3, 9)
    ledger = assignment.ledger
    metadata = encode_map(ledger.committable, ledger.settled_ahead())
    await runner.close()

    again, runner = on_stage(ordering="none", concurrency=10)
    submit(runner, runner.open(P0, 1, decode_map(1, metadata)), records(range(1, 10)))
    await turns(40)
    assert sorted(again.offsets) == [1, 4, 5, 6, 7, 8]
