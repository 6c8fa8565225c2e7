"""Brokers to measure against: the embedded one, a genuine Apache Kafka, or one that runs already."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.embedded import start_embedded

BROKER_START = 30.0


@dataclasses.dataclass(frozen=True)
class RunningBroker:
    """A broker and what is known about it.

    Attributes:
        address: Bootstrap servers, as clients are to see them.
        description: For the lines.
        pids: Of its processes, when they are ours.
    """

    address: str
    description: str
    pids: tuple[int, ...] = ()


@contextlib.contextmanager
def broker(
    kind: str, cores: str, *, round_trip: float = 0.0, durability: str = "os", nodes: int = 1
) -> Iterator[RunningBroker]:
    """Run a broker for as long as the block lasts.

    Args:
        kind: `embedded`, `kafka`, or the address of one that runs.
        cores: Where it may run, as `0,1`.
        round_trip: Seconds that the link to it takes, both ways together.
        durability: Of the embedded broker; Apache Kafka acknowledges before the disk has it, which is `os`.
        nodes: Of an Apache Kafka.

    Raises:
        ValueError: A link can only be put before a single broker that is started here.
    """
    if round_trip and (kind not in ("embedded", "kafka") or nodes > 1):
        raise ValueError("--rtt needs a single broker that this script starts: --broker embedded or --broker kafka")
    with contextlib.ExitStack() as stack:
        public, private = free_port(), free_port()
        if not round_trip:
            private = public
        match kind:
            case "embedded":
                with pinned(cores):
                    running = stack.enter_context(_embedded(private, public, durability))
            case "kafka":
                with pinned(cores):
                    running = stack.enter_context(_kafka(private, public, nodes))
            case _:
                running = RunningBroker(kind, f"cluster at {kind.partition('?')[0]}")  # a query may hold a password
        if round_trip:
            with pinned(cores):
                stack.enter_context(_link(public, private, round_trip))
            running = dataclasses.replace(running, address=f"127.0.0.1:{public}")
        yield running


@contextlib.contextmanager
def pinned(cores: str) -> Iterator[None]:
    """Start processes in this block on these cores: a child inherits them, with all its threads."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _embedded(port: int, advertised: int, durability: str) -> Iterator[RunningBroker]:
    from octopus import __version__

    directory = Path(tempfile.mkdtemp(prefix="octopus-bench-"))
    process, address = start_embedded(directory, port=port, advertised=advertised, durability=durability)
    try:
        yield RunningBroker(address, f"octopus embedded {__version__} ({durability})", (process.pid,))
    finally:
        end(process)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _kafka(port: int, advertised: int, nodes: int) -> Iterator[RunningBroker]:
    from tests.support.kafka_cluster import KafkaCluster
    from tests.support.kafka_jars import kafka_version

    properties = {
        "num.network.threads": "3",
        "num.io.threads": "8",
        "auto.create.topics.enable": "true",
        "log.retention.check.interval.ms": "300000",
    }
    if advertised != port:
        properties["advertised.listeners"] = f"CLIENTS://127.0.0.1:{advertised}"
    # No TieredStopAtLevel here: the tests' Java machine is quick to start and slow ever after.
    cluster = KafkaCluster(nodes, properties=properties, port=port if nodes == 1 else None, java_options=["-Xmx1g"])
    with cluster:
        nodes_now: Any = cluster.describe()["nodes"]
        name = f"Apache Kafka {kafka_version()}" + (f", {nodes} brokers" if nodes > 1 else "")
        yield RunningBroker(cluster.bootstrap, name, tuple(node["pid"] for node in nodes_now))


@contextlib.contextmanager
def _link(listen: int, target: int, round_trip: float) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.delay", str(listen), str(target), str(round_trip)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + BROKER_START
        while True:
            try:
                socket.create_connection(("127.0.0.1", listen), 1.0).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """End a process that was started here."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
