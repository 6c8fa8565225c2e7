"""Runs records through an application: ordered, concurrent, each settled exactly once."""

from octopus.runner.generation import Generation
from octopus.runner.runner import Runner

__all__ = ["Generation", "Runner"]
