"""What checks find."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class State(StrEnum):
    """How a check ended."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """What one check found.

    Attributes:
        subject: What was looked at.
        state: Good, doubtful or wrong.
        text: What is so; further lines are details.
        mend: What to do, where something is to be done.
    """

    subject: str = msgspec.field(name="check")
    state: State
    text: str
    mend: str = ""


class Checkup(msgspec.Struct, frozen=True):
    """What all checks found.

    Attributes:
        ok: Whether nothing is wrong.
        checks: What each found.
    """

    ok: bool
    checks: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> "Checkup":
        """Return what all of them say together."""
        checks = tuple(findings)
        return cls(not any(finding.state is State.WRONG for finding in checks), checks)

    def count(self, state: State) -> int:
        """Return how many checks ended so."""
        return sum(finding.state is state for finding in self.checks)


def good(subject: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(subject, State.GOOD, text)


def doubtful(subject: str, text: str, mend: str) -> Finding:
    """Return that something is worth a look."""
    return Finding(subject, State.DOUBTFUL, text, mend)


def wrong(subject: str, text: str, mend: str) -> Finding:
    """Return that something must be mended."""
    return Finding(subject, State.WRONG, text, mend)
