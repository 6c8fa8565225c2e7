"""Runs records through an application: ordered, concurrent, each settled exactly once."""

from octopus.runner.generation import Generation
from octopus.runner.runner import CLOSE_TIMEOUT, Runner

__all__ = ["CLOSE_TIMEOUT", "Generation", "Runner"]
