"""How long the embedded broker takes to start: with nothing, and after it was killed with a full log."""

import asyncio
import dataclasses
import tempfile
import time
from pathlib import Path

from benchmarks.brokers import end, pinned
from benchmarks.clients.broker_load import memory, produce
from benchmarks.embedded import start_embedded
from benchmarks.task import Task
from octopus.transports.opening import open_transport


def run(task: Task) -> dict[str, float]:
    """Start once, or start, fill, kill and start again."""
    with tempfile.TemporaryDirectory(prefix="octopus-bench-") as name, pinned(task.options["broker_cores"]):
        directory = Path(name)
        if task.options["way"] == "start":
            seconds, used = start(directory)
            return {"seconds_to_first": seconds, "broker_memory_mb": used}
        return recover(task, directory)


def recover(task: Task, directory: Path) -> dict[str, float]:
    """Fill a log, kill the broker, and time how much longer than with nothing the next one takes to answer."""
    with tempfile.TemporaryDirectory(prefix="octopus-bench-") as empty:
        nothing, _ = start(Path(empty))
    process, address = start_embedded(directory)
    try:
        task = dataclasses.replace(task, brokers=address, topic="filled")
        asyncio.run(create(address, task))
        produce(task)
    finally:
        process.kill()
        process.wait()
    gigabytes = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e9
    seconds, used = start(directory)
    return {
        "seconds_to_first": seconds,
        "recovery_s_per_gb": max(seconds - nothing, 0.0) / gigabytes,
        "megabytes": 1000 * gigabytes,
        "broker_memory_mb": used,
    }


def start(directory: Path) -> tuple[float, float]:
    """Return the seconds until a broker there has answered, and the memory it then has, megabytes."""
    began = time.perf_counter()
    process, address = start_embedded(directory)
    try:
        asyncio.run(topics(address))
        return time.perf_counter() - began, memory(process.pid)
    finally:
        end(process)


async def topics(address: str) -> None:
    """Ask for the topics: an answer means that it serves."""
    admin = open_transport(address).admin()
    await admin.start()
    await admin.topics()
    await admin.stop()


async def create(address: str, task: Task) -> None:
    """Make the topic."""
    admin = open_transport(address).admin()
    await admin.start()
    await admin.create_topic(task.topic, partitions=task.partitions)
    await admin.stop()
