"""What a killed worker costs: `octopus run --workers 3`, SIGKILL to one, and the longest wait of events meanwhile."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from benchmarks.clients.octopus_scale import publish
from benchmarks.task import Task
from octopus import Octopus, config
from octopus.worker import Worker

WORKERS = 3

BEFORE, AFTER = 3.0, 6.0
"""Seconds of events before the kill, once every worker has its share, and after it."""

PATIENCE = 60.0
"""Seconds until every worker must have its share."""

APP = """
import os, time
from octopus import Event, Octopus

app = Octopus({name!r})
log = open("handled", "a", buffering=1)

@app.on({topic!r}, start="earliest")
def handle(event: Event[dict[str, float]]) -> None:
    print(os.getpid(), event.partition, event.offset, time.monotonic() - event.value["due"], file=log)
"""


class Handled(NamedTuple):
    """One event that a worker has handled."""

    pid: int
    partition: int
    offset: int
    waited: float


def run(task: Task) -> dict[str, float]:
    """Measure it."""
    return asyncio.run(kill_one(task))


async def kill_one(task: Task) -> dict[str, float]:
    """Publish steadily, kill the owner of partition 0, and tell its partitions from those of the others."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    consumer = [f"--config=consumer.{key}={value}" for key, value in task.options["consumer"].items()]
    command = [
        sys.executable,
        "-m",
        "octopus",
        "run",
        "app.py:app",
        f"--workers={WORKERS}",
        f"--brokers={task.brokers}",
    ]
    publisher = Octopus(f"{name}-publisher")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "app.py").write_text(APP.format(name=name, topic=task.topic))
        log = Path(directory) / "handled"
        log.touch()
        workers = subprocess.Popen([*command, *consumer], cwd=directory)
        try:
            async with Worker(publisher, config.load({"brokers": task.brokers})):
                publishing = asyncio.create_task(publish(publisher, task))
                owners = await shares(log, task.partitions)
                seen = len(read(log))
                os.kill(owners[0], signal.SIGKILL)
                await asyncio.sleep(AFTER)
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)
        finally:
            workers.terminate()
            await asyncio.to_thread(workers.wait)
        handled = read(log)
    longest = dict.fromkeys(owners, 0.0)
    for each in handled[seen:]:
        longest[each.partition] = max(longest[each.partition], each.waited)
    own = {place for place, pid in owners.items() if pid == owners[0]}
    times = Counter((each.partition, each.offset) for each in handled)
    return {
        "pause_ms": 1000 * max(longest[place] for place in own),
        "stayed_pause_ms": 1000 * max(longest[place] for place in owners.keys() - own),
        "duplicates": sum(count - 1 for count in times.values()),
        "records": len(times),
    }


async def shares(log: Path, partitions: int) -> dict[int, int]:
    """Wait until every worker has had its share for a while; return the process that handles each partition."""
    steady = 0.0
    before: dict[int, int] = {}
    async with asyncio.timeout(PATIENCE):
        while steady < BEFORE:
            await asyncio.sleep(0.5)
            owners = {each.partition: each.pid for each in read(log)[-250 * partitions :]}
            is_shared = len(owners) == partitions and len({*owners.values()}) == WORKERS
            steady = steady + 0.5 if is_shared and owners == before else 0.0
            before = owners
    return before


def read(log: Path) -> list[Handled]:
    """Return what was handled; a line that is being written is left for the next time."""
    found = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            pid, partition, offset, waited = line.split()
            found.append(Handled(int(pid), int(partition), int(offset), float(waited)))
    return found
