"""Whether everything is in order: the machine, the settings, the app, the broker. Nothing is changed, nothing started."""

from octopus.operations.checkups.examination import Origin, examine
from octopus.operations.checkups.findings import Checkup, Finding, State

__all__ = ["Checkup", "Finding", "Origin", "State", "examine"]
