"""What every client of the sweep reports, whoever made it. Standard library only."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from benchmarks.task import Task

BrokersCpu = Callable[[], float | None]
"""CPU seconds of all brokers until now, or None when they are not ours."""

EVERY = 100
"""At full speed one record of so many is timed."""


@dataclasses.dataclass
class Done:
    """What one client did. Made when its clock starts.

    Attributes:
        records: Published, or read.
        brokers_cpu: CPU seconds of the brokers when the clock started.
        requests: Produce or Fetch requests.
        latencies: Seconds from when a record was handed over, or due, until it was acknowledged.
        begin: Monotonic seconds.
        end: Monotonic seconds.
        cpu: Seconds of this process, all threads.
    """

    records: int
    brokers_cpu: float | None
    requests: int = 0
    latencies: list[float] = dataclasses.field(default_factory=list)
    begin: float = dataclasses.field(default_factory=time.monotonic)
    end: float = 0.0
    cpu: float = dataclasses.field(default_factory=time.process_time)

    def stop(self) -> None:
        """Stop the clock."""
        self.end, self.cpu = time.monotonic(), time.process_time() - self.cpu


def share(task: Task) -> int:
    """Return how many records one producer publishes."""
    return int(task.total // task.options["clients"])


def percentile(seconds: Sequence[float], part: float) -> float:
    """Return that percentile; 0 of nothing."""
    ordered = sorted(seconds)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0
