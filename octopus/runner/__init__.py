"""Runs records through an application: ordered, concurrent, each settled exactly once."""

from octopus.runner.assignment import Assignment
from octopus.runner.runner import CLOSE_TIMEOUT, Runner

__all__ = ["CLOSE_TIMEOUT", "Assignment", "Runner"]
