"""What both sides of the latency cases share: the schedule, the handler's work, the feeder, the percentiles.

An event carries the time at which it was *due*, so that a system that cannot keep up is charged for the wait as well.

    python -m benchmarks.clients.latency TASK RATE BEGIN     feeds, from `BEGIN` (monotonic seconds) on
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import aiokafka
import msgspec

from benchmarks.task import Task

INTERVAL = 0.02
"""Seconds between events when idle."""

WORK = 100e-6
"""Seconds that the handler computes: of its thread's CPU time, since what another thread or process does meanwhile is not its work."""

LONGEST = 20.0
"""Seconds that a run may last."""

LEAD = 3.0
"""Seconds for everybody to be connected before the first event is due."""


class Timed(msgspec.Struct):
    """An event.

    Attributes:
        due: Monotonic seconds.
        filling: Brings it to its size.
    """

    due: float
    filling: str


class Latencies:
    """Collects what handlers see.

    Args:
        task: How many events to expect.
    """

    def __init__(self, task: Task) -> None:
        self.rate = rate(task)
        self.expected = min(task.total, max(int(self.rate * LONGEST), 50))
        self._skip = self.expected // 20
        self._seconds: list[float] = []
        self._work = WORK if task.options["load"] else 0.0
        self._began = 0.0

    def note(self, event: Timed) -> None:
        """Take an event's time, then compute for a while."""
        now = time.monotonic()
        self._seconds.append(now - event.due)
        if self._work:
            until = time.thread_time() + self._work
            while time.thread_time() < until:
                pass
        if len(self._seconds) == self._skip:
            self._began = now

    @property
    def is_done(self) -> bool:
        """Whether all have come."""
        return len(self._seconds) >= self.expected

    def figures(self) -> dict[str, float]:
        """Return percentiles in milliseconds, and the rates."""
        took = time.monotonic() - self._began
        measured = sorted(self._seconds[self._skip :])

        def percentile(part: float) -> float:
            return 1000 * measured[min(int(part * len(measured)), len(measured) - 1)]

        return {
            "p50_ms": percentile(0.5),
            "p99_ms": percentile(0.99),
            "p999_ms": percentile(0.999),
            "offered_per_second": self.rate,
            "handled_per_second": len(measured) / took,
        }


def rate(task: Task) -> float:
    """Return the events per second that the case offers."""
    return task.options["load"] / 100 / WORK if task.options["load"] else 1 / INTERVAL


def event(due: float, size: int) -> Timed:
    """Return an event of that size."""
    return Timed(due, "x" * max(size - 50, 0))


@contextlib.contextmanager
def feeding(task: Task, latencies: Latencies) -> Iterator[None]:
    """Have a process on the broker's cores publish at the case's rate."""
    begin = time.monotonic() + LEAD
    arguments = [task.to_json(), str(latencies.expected), str(begin)]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.clients.latency", *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def feed(task: Task, count: int, begin: float) -> None:
    """Publish `count` events, each as soon as it is due."""
    interval = 1 / rate(task)
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=task.brokers, acks="all", enable_idempotence=True, max_batch_size=64 * 1024
    ) as producer:
        number = 0
        while number < count:
            due = begin + number * interval
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(max(wait, 0.001))
                continue
            await producer.send(task.topic, msgspec.json.encode(event(due, task.value_bytes)))
            number += 1
        await producer.flush()


if __name__ == "__main__":
    given = Task.from_json(sys.argv[1])
    if given.options["broker_cores"]:
        from os import sched_setaffinity

        sched_setaffinity(0, {int(core) for core in given.options["broker_cores"].split(",")})
    asyncio.run(feed(given, int(sys.argv[2]), float(sys.argv[3])))
