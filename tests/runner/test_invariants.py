"""The invariants of the runner's machines: each is noticed when it is broken."""

from collections.abc import Callable
from typing import Any

import pytest

from octopus.claim import Claim
from octopus.events import Batch
from octopus.outcomes import Retry
from octopus.runner import Assignment, Runner
from octopus.runner.draining import DrainingLanes
from octopus.runner.lanes import BatchLane, KeyLanes, Queue
from octopus.runner.ledger import OffsetLedger
from tests.runner.begun import OnStage, begin
from tests.staged import P1, record, records, turns


def _without_alarm(runner: Runner) -> Any:
    delays = runner._schedule._delays
    assert delays._alarm is not None
    delays._alarm.cancel()
    return delays


def _counted_twice(runner: Runner, assignment: Assignment) -> Any:
    runner._schedule.active.extend([assignment, assignment])
    return runner._schedule


def _held_and_active(runner: Runner, assignment: Assignment) -> Any:
    runner._schedule._held.add(assignment)
    runner._schedule.active.append(assignment)
    assignment.active = True
    return runner._schedule


def _due_of_the_drained(runner: Runner, assignment: Assignment) -> Any:
    runner._schedule.due.append((assignment, record(9), 1))
    assignment.lanes = DrainingLanes(0)
    return runner._schedule


def _inactive_in_the_schedule(runner: Runner, assignment: Assignment) -> Any:
    runner._schedule.active.append(assignment)
    return runner


def _claimed_by_nobody(runner: Runner, assignment: Assignment) -> Any:
    assignment.claims.append(Claim([record(7), record(8)]))
    return runner


def _closed_with_its_ledger(_: Runner, assignment: Assignment) -> Any:
    assignment.is_open = False
    return assignment


def _quiet_while_it_runs(runner: Runner, _: Assignment) -> Any:
    runner._slots.quiet.set()
    return runner._slots


def _more_slots_than_allowed(runner: Runner, _: Assignment) -> Any:
    runner._slots._concurrency = 0
    return runner._slots


def _claims_of_nothing(runner: Runner, _: Assignment) -> Any:
    runner._pacing.claim_limit = 0
    return runner._pacing


def _without_lane_and_not_delayed(runner: Runner, assignment: Assignment) -> Any:
    runner._schedule._without_lane.add((assignment, 5))
    return runner._schedule


BROKEN: dict[str, Callable[[Runner, Assignment], Any]] = {
    "an assignment has two turns": _counted_twice,
    "a held assignment has its turn": _held_and_active,
    "a retry of a drained assignment is due": _due_of_the_drained,
    "an assignment has a turn and does not know": _inactive_in_the_schedule,
    "a claim that nobody runs": _claimed_by_nobody,
    "a closed assignment with a ledger that settles": _closed_with_its_ledger,
    "quiet while a handler runs": _quiet_while_it_runs,
    "more slots than the concurrency": _more_slots_than_allowed,
    "claims without records": _claims_of_nothing,
    "a retry without its lane that nothing brings back": _without_lane_and_not_delayed,
    "retries without an alarm": lambda runner, _: _without_alarm(runner),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_invariant_is_noticed(
    switched_off: None, on_stage: OnStage, broken: Callable[[Runner, Assignment], Any]
) -> None:
    stage, runner = on_stage(ordering="partition", concurrency=3)
    delayed, assignment = begin(runner, records([0], P1)), begin(runner, records([0, 1]))
    await turns()
    await stage.end(0, outcome=Retry(60.0), partition=P1)
    for machine in (runner, runner._schedule, runner._slots, runner._pacing, delayed, assignment):
        machine.check()
    with pytest.raises(AssertionError):
        broken(runner, assignment).check()


def test_a_broken_ledger_or_lane_is_noticed(switched_off: None) -> None:
    ledger = OffsetLedger(0)
    ledger.receive(range(3), 3)
    ledger._settled.add(0)
    with pytest.raises(AssertionError):
        ledger.check()
    queue = Queue()
    queue.put(records(range(3)))
    queue.waiting = 2
    with pytest.raises(AssertionError):
        queue.check()
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"a")])
    lanes.take()
    lanes.take()
    lanes._behind[b"a"].clear()  # type: ignore[union-attr]
    with pytest.raises(AssertionError):
        lanes.check()


def test_a_step_that_breaks_one_fails_in_tests() -> None:
    ledger = OffsetLedger(0)
    ledger._received = -5
    with pytest.raises(AssertionError):
        ledger.receive(range(3), 3)


def test_a_broken_lane_of_batches_is_noticed(switched_off: None) -> None:
    lane = BatchLane(2)
    lane.put(records(range(3)))
    lane.take()
    lane.put_first(Batch(records([7, 8])))
    lane.check()
    lane._again.append(Batch())
    with pytest.raises(AssertionError):
        lane.check()
    lane._again.pop()
    lane._size = 3
    with pytest.raises(AssertionError):
        lane.check()


def test_a_record_that_comes_back_to_its_lane_keeps_the_invariants() -> None:
    lanes = KeyLanes()
    lanes.put([record(0, b"a"), record(1, b"a"), record(2, b"a")])
    (first,) = lanes.take()
    lanes.take()
    lanes.release([first])
    lanes.put_first(first)
    assert [each.offset for each in lanes.take()] == [1]
    lanes._behind[b"a"].reverse()  # type: ignore[union-attr]
    with pytest.raises(AssertionError):
        lanes.put_first(record(3, b"b"))
