"""librdkafka at full speed, and what it does to the broker."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import confluent_kafka

from benchmarks.address import for_librdkafka
from benchmarks.clients.confluent_consume import TUNED
from benchmarks.records import values
from benchmarks.stopwatch import rates
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Consume or produce all records of the task."""
    before = broker_cpu(task)
    wall, cpu = time.perf_counter(), _cpu()
    ways: dict[str, Callable[[Task], None]] = {"consume": consume, "kcat": consume_by_kcat, "produce": produce}
    way = ways[task.options["way"]]
    way(task)
    figures = rates(task.total, time.perf_counter() - wall, _cpu() - cpu)
    if before is not None:
        after = broker_cpu(task)
        assert after is not None
        figures["broker_cpu_us"] = 1e6 * (after - before) / task.total
        figures["broker_memory_mb"] = memory(task.options["broker_pids"][0])
    return figures


def consume(task: Task) -> None:
    """Read every partition from its beginning, without a group."""
    consumer = confluent_kafka.Consumer({**for_librdkafka(task.brokers), "group.id": "unused", **TUNED})
    partitions = [confluent_kafka.TopicPartition(task.topic, number, 0) for number in range(task.partitions)]
    consumer.assign(partitions)
    seen = 0
    while seen < task.total:
        seen += len(consumer.consume(5000, 1.0))


def consume_by_kcat(task: Task) -> None:
    """Read every partition with kcat, which is librdkafka and no Python: this client can do more than the broker has to show.

    Raises:
        RuntimeError: There is no kcat, or it did not read everything.
    """
    if shutil.which("kcat") is None:
        raise RuntimeError("kcat is missing: install it (kcat on Debian)")
    settings = {**for_librdkafka(task.brokers), "queued.min.messages": 500_000, "fetch.wait.max.ms": 100}
    given = [f"-X{name}={value}" for name, value in settings.items()]
    command = ["kcat", "-C", *given, "-t", task.topic, "-o", "beginning", "-c", str(task.total), "-e", "-q", "-f", "."]
    seen = len(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    if seen != task.total:
        raise RuntimeError(f"kcat read {seen} of {task.total} records")


def produce(task: Task) -> None:
    """Publish without delivery reports for each record; `flush` says whether all went well."""
    producer = confluent_kafka.Producer(
        {
            **for_librdkafka(task.brokers),
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    batch = [{"value": value} for value in values(task.value_bytes, 500, task.seed)]
    for _ in range(0, task.total, len(batch)):
        while producer.produce_batch(task.topic, batch) < len(batch) or len(producer) > 500_000:
            producer.poll(0.01)
    if left := producer.flush(60):
        raise RuntimeError(f"{left} records were not acknowledged")


def _cpu() -> float:
    """Return the CPU seconds of this process and of those it has run."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def broker_cpu(task: Task) -> float | None:
    """Return the CPU seconds that the broker has used, or None when it is not ours."""
    if not task.options["broker_pids"]:
        return None
    fields = Path(f"/proc/{task.options['broker_pids'][0]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100  # USER_HZ


def memory(pid: int) -> float:
    """Return the resident memory of a process (0 for this one), megabytes."""
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
