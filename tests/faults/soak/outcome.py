"""What a soak is to be, what came of it, and the history that keeps both."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from octopus.testing.history import Event, Note, Report, check, read_lines, write_line
from tests.faults.journal import now


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """What a soak is to be.

    Attributes:
        seed: Of everything that is left to chance.
        broker: `embedded` or `kafka`.
        ordering: Of the handler.
        delivery: Of the handler, `at_least_once` or `exactly_once`.
        seconds: How long to disturb; settling comes on top.
    """

    seed: int
    broker: str = "embedded"
    ordering: str = "key"
    delivery: str = "at_least_once"
    seconds: float


class Outcome(msgspec.Struct, kw_only=True):
    """What a soak was and what came of it; kept in the history as a note, for `replay`.

    Attributes:
        plan: What it was to be.
        seconds: How long it ran.
        excused: Effects that its faults might have repeated.
        outputs: Topics of its outputs, where they are exactly once.
        published: Topics of its outputs, where they are at least once, by the topic that is read.
        interrupted: Whether somebody ended it before its time. What was not finished by then is not lost.
        failure: What ended it before its time: something did not settle, a broker died by itself, …
        crashes: The last words of workers that ended as none may.
    """

    plan: Plan
    seconds: float
    excused: int
    outputs: tuple[str, ...] = ()
    published: dict[str, tuple[str, ...]] = {}
    interrupted: bool = False
    failure: str = ""
    crashes: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether it ran to its end."""
        return not (self.interrupted or self.failure)


class Verdict(NamedTuple):
    """What a soak was and what its history says."""

    outcome: Outcome
    report: Report

    @property
    def exit_code(self) -> int:
        """0 when it ran to its end and nothing was found, 1 when something was, 2 when it was interrupted before."""
        if self.report.anomalies or self.outcome.failure or self.outcome.crashes:
            return 1
        return 2 if self.outcome.interrupted else 0


def write_history(path: Path, events: Iterable[Event], outcome: Outcome) -> None:
    """Write all events in order of time, and last what the run was."""
    with path.open("wb") as file:
        for event in sorted(events, key=lambda event: event.time):
            file.write(write_line(event))
        file.write(write_line(Note(time=now(), what="soak", who=msgspec.json.encode(outcome).decode())))


def replay(path: Path) -> Verdict:
    """Check the history of a soak.

    Raises:
        OSError: It cannot be read.
        ValueError: It is none.
    """
    with path.open("rb") as lines:
        events = [*read_lines(lines)]
    last = events.pop() if events else None
    if not isinstance(last, Note) or last.what != "soak":
        raise ValueError(f"{path} is not the history of a soak: its last line does not say so.")
    outcome = msgspec.json.decode(last.who, type=Outcome)
    report = check(
        events,
        ordering=outcome.plan.ordering,  # type: ignore[arg-type]
        duplicates=outcome.excused,
        complete=outcome.is_complete,
        outputs=outcome.outputs,
        published=outcome.published,
    )
    return Verdict(outcome, report)
