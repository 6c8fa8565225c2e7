"""A long run under faults that chance chooses: what `scripts/soak` runs."""

from tests.faults.soak.course import soak
from tests.faults.soak.outcome import Outcome, Plan, Verdict, replay, write_history
from tests.faults.soak.report import describe, write_report

__all__ = ["Outcome", "Plan", "Verdict", "describe", "replay", "soak", "write_history", "write_report"]
