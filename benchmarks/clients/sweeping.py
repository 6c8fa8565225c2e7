"""What every client of the sweep reports, whoever made it. Standard library only."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from benchmarks.task import Task


@dataclasses.dataclass(frozen=True)
class Busy:
    """CPU seconds until now.

    Attributes:
        brokers: Of all brokers; 0 when they are not ours.
        broker_cores: Of everybody on the cores that the brokers have.
        client_cores: Of everybody on those that the clients have.
    """

    brokers: float
    broker_cores: float
    client_cores: float


Look = Callable[[], Busy]

EVERY = 100
"""At full speed one record of so many is timed."""


@dataclasses.dataclass
class Done:
    """What one client did. Made when its clock starts.

    Attributes:
        records: Published, or read.
        look: Tells how busy everybody was until now.
        requests: Produce or Fetch requests.
        latencies: Seconds from when a record was handed over, or due, until it was acknowledged.
        begin: Monotonic seconds.
        end: Monotonic seconds.
        cpu: Seconds of this process, all threads.
        before: How busy everybody was when the clock started.
        after: And when it stopped.
    """

    records: int
    look: Look
    requests: int = 0
    latencies: list[float] = dataclasses.field(default_factory=list)
    begin: float = dataclasses.field(default_factory=time.monotonic)
    end: float = 0.0
    cpu: float = dataclasses.field(default_factory=time.process_time)

    def __post_init__(self) -> None:
        self.before = self.after = self.look()

    def stop(self) -> None:
        """Stop the clock."""
        self.end, self.cpu = time.monotonic(), time.process_time() - self.cpu
        self.after = self.look()


def share(task: Task) -> int:
    """Return how many records one producer publishes."""
    return int(task.total // task.options["clients"])


def percentile(seconds: Sequence[float], part: float) -> float:
    """Return that percentile; 0 of nothing."""
    ordered = sorted(seconds)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0
