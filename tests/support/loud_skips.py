"""Skips that the end of a run must not hide: a suite that proves something about the outside world did not run."""

from collections import Counter
from typing import NoReturn

import pytest

_MARK = "did NOT run: "


def loud_reason(what: str, why: str) -> str:
    """Return the reason of a skip that `loud_lines` finds again."""
    return f"{what} {_MARK}{why}"


def skip_loudly(what: str, why: str) -> NoReturn:
    """Skip the running test; the run's last lines will say that `what` did not run, and why."""
    pytest.skip(loud_reason(what, why))


def loud_lines(terminalreporter: pytest.TerminalReporter) -> list[str]:
    """Return one line for each suite that did not run."""
    reasons = [
        report.longrepr[2] for report in terminalreporter.getreports("skipped") if isinstance(report.longrepr, tuple)
    ]
    counted = Counter(reason.removeprefix("Skipped: ") for reason in reasons if _MARK in reason)
    return [f"ATTENTION: {reason} ({count} tests skipped)" for reason, count in counted.items()]
