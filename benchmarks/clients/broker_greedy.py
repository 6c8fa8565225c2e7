"""What a client of the embedded broker notices of a greedy one: how long its produce and fetch take alone, and beside it."""

import itertools
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.brokers import end
from benchmarks.embedded import start_embedded
from benchmarks.task import Task
from octopus.broker.batch import Record, encode_batch
from octopus.broker.wire import Writer

PRODUCE, FETCH, CREATE_TOPICS = 0, 1, 19
TOPIC = "mine"
CONNECTIONS = 4_096
HOGS = 6
WARM_UP = 50


class Client:
    """A connection that waits for each answer."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, key: int, version: int, body: bytes) -> None:
        """Send a request and wait for its whole answer."""
        request = content(Writer().int16(key).int16(version).int32(1).string("bench")) + body
        self.socket.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", self._read(4))
        self._read(size)

    def _read(self, size: int) -> bytes:
        data = self.socket.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise ConnectionError("the broker closed the connection")
        return data


def run(task: Task) -> dict[str, float]:
    """Measure alone, then beside the greedy client, on one broker."""
    with tempfile.TemporaryDirectory(prefix="octopus-bench-") as name:
        process, address = start_embedded(Path(name) / "data", durability="fsync")
        try:
            client = Client(address)
            create(client, TOPIC, 1)
            measure(client, WARM_UP)
            alone = measure(client, task.records)
            with GREEDY[task.options["kind"]](address):
                beside = measure(client, task.records)
        finally:
            end(process)
    return {
        "produce_p99_ms": beside[0],
        "fetch_p99_ms": beside[1],
        "produce_p99_ratio": beside[0] / alone[0],
        "fetch_p99_ratio": beside[1] / alone[1],
    }


def measure(client: Client, rounds: int) -> tuple[float, float]:
    """Return the 99th percentiles of produce and fetch, milliseconds."""
    batch = encode_batch([Record(0, int(time.time() * 1000), b"key", bytes(1000))])
    produce = Writer().string(None).int16(-1).int32(60_000)
    produce.int32(1).string(TOPIC).int32(1).int32(0).blob(batch)
    fetch = Writer().int32(-1).int32(0).int32(1).int32(2**20).int8(0)
    fetch.int32(1).string(TOPIC).int32(1).int32(0).int64(0).int32(50_000)
    requests = (PRODUCE, 3, content(produce)), (FETCH, 4, content(fetch))
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for (key, version, body), times in zip(requests, taken, strict=True):
            began = time.perf_counter()
            client.ask(key, version, body)
            times.append(1000 * (time.perf_counter() - began))
    produced, fetched = (sorted(times)[int(0.99 * (rounds - 1))] for times in taken)
    return produced, fetched


def content(writer: Writer) -> bytes:
    """Return what was written."""
    return b"".join(bytes(part) for part in writer.frame(0)[1:])


def create(client: Client, topic: str, partitions: int) -> None:
    """Create a topic."""
    body = Writer().int32(1).string(topic).int32(partitions).int16(1).int32(0).int32(0).int32(60_000).boolean(False)
    client.ask(CREATE_TOPICS, 2, content(body))


@contextmanager
def creating(address: str) -> Iterator[None]:
    """Create topics of a hundred partitions, one after the other."""
    numbers = itertools.count()
    with going_on(lambda client: create(client, f"theirs-{next(numbers)}", 100), address):
        yield


@contextmanager
def announcing(address: str) -> Iterator[None]:
    """Announce a hundred megabytes, on a few connections, and send nothing."""
    with holding(address, HOGS, struct.pack(">i", 100 * 2**20 - 1)):
        yield


@contextmanager
def idling(address: str) -> Iterator[None]:
    """Hold as many connections as the broker allows, and ask nothing; more are opened all the time."""
    with holding(address, CONNECTIONS, b""), going_on(lambda _: None, address):
        yield


@contextmanager
def holding(address: str, count: int, first: bytes) -> Iterator[None]:
    """Open connections and send only `first`."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Client(address).socket).sendall(first)
        yield


@contextmanager
def going_on(step: Callable[[Client], object], address: str) -> Iterator[None]:
    """Do something again and again in a thread, each time on a new connection."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.001):
            with suppress(OSError):
                client = Client(address)
                with client.socket:
                    step(client)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


GREEDY = {"thousands of partitions": creating, "announced bytes": announcing, "idle connections": idling}
