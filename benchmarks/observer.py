"""Times a client from outside, by what stands in its output topic. Runs beside the broker, in the project's environment.

A client that reads, handles and publishes has done nothing before its outputs are in the log, whatever it counts itself. So the
clock follows the end of the output topic as readers of committed records see it, and in the end the outputs are read: each
record of the input must have one.
"""

import asyncio
import collections
import contextlib
import dataclasses
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import confluent_kafka
import confluent_kafka.admin
import msgspec

from benchmarks.address import for_librdkafka
from benchmarks.brokers import end, pinned
from benchmarks.embedded import start_embedded
from benchmarks.environments import python_of
from benchmarks.records import Workload, contents
from benchmarks.stopwatch import rates
from benchmarks.task import Task
from benchmarks.topics import Topics

LOOK_EVERY = 0.01
"""Seconds between two looks at the end of the outputs."""

START = 60.0
"""Seconds until the first output."""

PATIENCE = 20.0
"""Seconds without another output after which the rest is missing."""

STILL = 1.0
"""Seconds without another output after which the last transaction was the last one."""

ANSWER = 10.0
"""Seconds that the broker may take to answer."""

TICKS = os.sysconf("SC_CLK_TCK")


class OutputsMissing(Exception):
    """The output topic does not have what it should have; the message says how much."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What stood in the output topic at a time.

    Attributes:
        count: Records, and markers of transactions.
        wall: When, seconds.
        cpu: What the client had computed by then, seconds.
    """

    count: int
    wall: float
    cpu: float


class Part(msgspec.Struct):
    """What identifies a record and its output."""

    path: str


def run(task: Task) -> dict[str, float]:
    """Start the client that the options name, and watch its outputs grow.

    Raises:
        OutputsMissing: No output came for `PATIENCE` seconds, the client ended, or the outputs are not those of the records.
    """
    with _broker(task) as task, _outputs(task) as outputs, _client(task, outputs) as client:
        watched = Watched(task.brokers, outputs, task.partitions)
        first, last = _grow(watched, client, task)
        again = watched.check(task)
        client.check()
        figures = rates(last.count - first.count, last.wall - first.wall, last.cpu - first.cpu)
        return figures | {"duplicates": again, "memory_mb": client.peak_memory()}


class Client:
    """The process that is measured, and what it says.

    Args:
        process: Of the client.
        said: The file with its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process, self._said = process, said

    def cpu(self) -> float:
        """Return the seconds it has computed, in all its threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_memory(self) -> float:
        """Return the most memory it has used, megabytes."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def check(self) -> None:
        """Raise `OutputsMissing` when it has ended, with its last line."""
        if self._process.poll() is not None:
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").strip().splitlines()
            raise OutputsMissing(lines[-1] if lines else f"the client ended, exit code {self._process.returncode}")


class Watched:
    """The output topic, as readers of committed records see it.

    Args:
        brokers: Bootstrap servers.
        topic: Its name.
        partitions: How many it has.
    """

    def __init__(self, brokers: str, topic: str, partitions: int) -> None:
        self._settings = for_librdkafka(brokers)
        self._admin = confluent_kafka.admin.AdminClient(self._settings)
        self._partitions = [confluent_kafka.TopicPartition(topic, number) for number in range(partitions)]
        self._count = 0

    def count(self) -> int:
        """Return how much stands in it: records, and markers of transactions."""
        latest = dict.fromkeys(self._partitions, confluent_kafka.admin.OffsetSpec.latest())
        answers = self._admin.list_offsets(
            latest, isolation_level=confluent_kafka.IsolationLevel.READ_COMMITTED, request_timeout=ANSWER
        )
        with contextlib.suppress(confluent_kafka.KafkaException):  # partitions of a new topic have no leader at first
            self._count = sum(answer.result().offset for answer in answers.values())
        return self._count

    def check(self, task: Task) -> int:
        """Read the outputs and return how many there are too many.

        Raises:
            OutputsMissing: A record has no output, or, where only a part was to be read, there are fewer than that.
        """
        found = collections.Counter(self._paths())
        if not task.options["whole"]:
            if found.total() < task.total:
                raise OutputsMissing(f"{found.total():,} of {task.total:,} outputs can be read")
            return 0
        workload = workload_of(task)
        decode = msgspec.json.Decoder(Part).decode
        wanted = collections.Counter(decode(value).path for _, value in contents(workload, task.seed))
        if missing := (wanted - found).total():
            raise OutputsMissing(f"{missing:,} of {task.total:,} records have no output")
        return (found - wanted).total()

    def _paths(self) -> Iterator[str]:
        decode = msgspec.json.Decoder(Part).decode
        consumer = confluent_kafka.Consumer(
            self._settings
            | {
                "group.id": "bench-observer",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([confluent_kafka.TopicPartition(one.topic, one.partition, 0) for one in self._partitions])
            open_partitions = {one.partition for one in self._partitions}
            while open_partitions:
                first = consumer.poll(ANSWER)
                if first is None:
                    raise OutputsMissing(f"the outputs cannot be read: no answer for {ANSWER:g} s")
                for message in [first, *consumer.consume(10_000, 0)]:  # with a timeout it would wait for all of them
                    error = message.error()
                    if error is None:
                        yield decode(message.value()).path
                    elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                        open_partitions.discard(message.partition())
                    else:
                        raise confluent_kafka.KafkaException(error)
        finally:
            consumer.close()


def _grow(watched: Watched, client: Client, task: Task) -> tuple[Look, Look]:
    """Return the looks at the end of the warm-up and at the last output.

    Raises:
        OutputsMissing: The outputs stopped growing.
    """
    before = first = last = Look(0, time.monotonic(), 0.0)
    still = STILL if task.options.get("delivery") == "exactly_once" else 0.0
    while True:
        now, count = time.monotonic(), watched.count()
        if count > last.count:
            last = Look(count, now, client.cpu())
            if first.count < max(task.warm_up, 1):
                first = last
        elif not count:
            before = Look(0, now, client.cpu())
        if last.count >= task.total and now - last.wall >= still:
            return (first if first.count < last.count else before), last  # few records may come at once
        client.check()
        if now - last.wall > (patience := PATIENCE if last.count else START):
            raise OutputsMissing(f"{last.count:,} of {task.total:,} outputs came, then none for {patience:g} s")
        time.sleep(LOOK_EVERY)


def workload_of(task: Task) -> Workload:
    """Return the contents of the input."""
    return Workload(task.value_bytes, task.partitions, task.options["keys"], False, task.total)


@contextlib.contextmanager
def _broker(task: Task) -> Iterator[Task]:
    """Yield the task with a broker and a full topic: as given, or with an embedded broker of the durability that is asked for."""
    if "durability" not in task.options:
        yield task
        return
    with tempfile.TemporaryDirectory(prefix="octopus-bench-") as directory:
        with pinned(task.options["broker_cores"]):
            process, address = start_embedded(Path(directory), durability=task.options["durability"])
        try:
            topic = asyncio.run(Topics(address, task.seed).ready(workload_of(task), fill=True))
            yield dataclasses.replace(task, brokers=address, topic=topic)
        finally:
            end(process)


@contextlib.contextmanager
def _outputs(task: Task) -> Iterator[str]:
    topics = Topics(task.brokers, task.seed)
    empty = dataclasses.replace(workload_of(task), records=0)
    name = asyncio.run(topics.ready(empty, fill=False))
    try:
        yield name
    finally:
        asyncio.run(topics.remove(name))


@contextlib.contextmanager
def _client(task: Task, outputs: str) -> Iterator[Client]:
    options = task.options
    task = dataclasses.replace(task, options=options | {"to": outputs}, spawned=time.monotonic())
    command = [python_of(options["environment"]), "-m", "benchmarks.child", options["client_cores"], options["module"]]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, task.to_json()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        try:
            yield Client(process, said)
        finally:
            process.kill()
            process.wait()
