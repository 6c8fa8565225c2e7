"""What a fresh process is asked to do, and how it answers. Standard library only: peers' environments have nothing else."""

import dataclasses
import json
import os
import sys
from typing import Any, NoReturn

ANSWER = "BENCHMARK-RESULT "
"""Begins the one line of standard output that counts."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One run of one case.

    Attributes:
        brokers: Bootstrap servers.
        topic: Where the records are, or where to publish.
        partitions: Of that topic.
        records: How many to measure.
        warm_up: How many to let pass before.
        value_bytes: Size of a value.
        seed: For whatever is drawn.
        options: Of the case.
        spawned: `time.monotonic()` just before the process was made.
    """

    brokers: str
    topic: str
    partitions: int
    records: int
    warm_up: int
    value_bytes: int
    seed: int
    options: dict[str, Any]
    spawned: float = 0.0

    @property
    def total(self) -> int:
        """Records with the warm-up."""
        return self.warm_up + self.records

    def to_json(self) -> str:
        """Return it as an argument for a process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def answer(figures: dict[str, float]) -> None:
    """Print the result."""
    sys.stdout.write(f"\n{ANSWER}{json.dumps(figures)}\n")
    sys.stdout.flush()


def finish(figures: dict[str, float]) -> NoReturn:
    """Print the result and end the process at once: for frameworks that are not asked to stop."""
    answer(figures)
    os._exit(0)


def read_answer(output: str) -> dict[str, float] | None:
    """Return the last result in a process's output, or None."""
    for line in reversed(output.splitlines()):
        if line.startswith(ANSWER):
            figures: dict[str, float] = json.loads(line.removeprefix(ANSWER))
            return figures
    return None
