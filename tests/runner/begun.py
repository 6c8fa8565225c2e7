"""Runners that have begun: on a stage, or with a function of the test, and records handed over as transports do it."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from octopus.events import Record, StoredRecord, TopicPartition
from octopus.outcomes import Outcome
from octopus.pipeline.claims import in_turn
from octopus.runner import Assignment, Runner
from octopus.types import BatchOutcome, RunClaim
from octopus.unacknowledged import Unacknowledged
from tests.staged import Stage, unread

Function = Callable[[TopicPartition, StoredRecord, int], Awaitable[Outcome | BatchOutcome]]
"""Partition, record and attempt to the outcome."""

HANDED_OVER = {"unread": False}
"""Whether records are read when their turn comes, or were before."""


class OnStage(Protocol):
    """Makes a stage and a runner of its records; the runner is closed with the test."""

    def __call__(self, **options: Any) -> tuple[Stage, Runner]: ...


class RunWith(Protocol):
    """Makes a runner that runs records through a function; it is closed with the test."""

    def __call__(self, function: Function, **options: Any) -> Runner: ...


class Plain:
    """An application made of one function."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        async def run(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
            return await self._function(partition, stored, attempt)

        return in_turn(run)


def begin(runner: Runner, given: list[Record]) -> Assignment:
    """Open the partition of some records at the first of them, and submit them."""
    first = given[0]
    assignment = runner.open(TopicPartition(first.topic, first.partition), first.offset)
    submit(runner, assignment, given)
    return assignment


def submit(runner: Runner, assignment: Assignment, given: list[Record]) -> None:
    """Hand records over, unread where the test is to have them so and their offsets are consecutive."""
    consecutive = given[-1].offset - given[0].offset + 1 == len(given)
    handed_over = unread(given) if HANDED_OVER["unread"] and consecutive else given
    runner.submit(assignment, handed_over, given[-1].offset + 1, sum(len(each.value or b"") for each in given))
