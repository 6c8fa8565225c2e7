"""What a record costs on its way from a fetched frame to its handler, part by part.

Each part is the difference of two ways that go equally far but for it, measured in turn. Standard record batches of 64 KiB; the
bytes are there already, so what the socket costs is not in it (`scripts/bench "consume:*:octopus transport*"` has it).
"""

import asyncio
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from benchmarks.clients.parts import Bound
from benchmarks.clients.timing import per_item
from benchmarks.records import HEADERS, values
from benchmarks.structs import FileEvent
from benchmarks.task import Task
from octopus import Octopus
from octopus.events import StoredRecord, TopicPartition
from octopus.runner import Runner
from octopus.transports.kafka.fetched import Batch, FetchedBatches
from octopus.unread import Unread
from octopus.worker.collector import patient_collector

BATCH_BYTES = 64 * 1024
FRAME_BYTES = 16 * 2**20
AT_ONCE = 256
"""Records read together, as long claims do."""

SUBMITTED = 4000
"""Records of a fetch, at most."""

ROUNDS = 7


def run(task: Task) -> dict[str, float]:
    """Measure the part that the case names."""
    size, has_headers = task.options["size"], task.options["headers"]
    road = Road(size, task, has_headers=has_headers)
    plain = Road(size, task, has_headers=False)
    ways: dict[str, tuple[Callable[[], int], Callable[[], int] | None]] = {
        "all of it": (road.handled, None),
        "batches: split, checksum": (road.split, None),
        "record objects, key and value": (plain.read, plain.split),
        "headers": (road.read, plain.read),
        "decode": (road.decoded, road.read),
        "call": (road.called, road.decoded),
        "claim, trace, settle": (road.handled, road.called),
        "all of it, in batches of 500": (road.handled_in_batches, None),
    }
    whole, less = ways[task.options["part"]]
    with patient_collector():
        taken = [per_item(whole, 1) - (per_item(less, 1) if less is not None else 0) for _ in range(ROUNDS)]
    return {"nanoseconds": max(statistics.median(taken), 0.0)}


class Road:
    """A fetched frame, and how far its records are taken.

    Args:
        size: Of a value, bytes.
        task: Has the seed.
        has_headers: Whether records have the two headers of the workloads.
    """

    def __init__(self, size: int, task: Task, *, has_headers: bool) -> None:
        self._size = size
        self._frame, self._count = _frame(size, task.seed, HEADERS if has_headers else ())
        self._decode = msgspec.json.Decoder(FileEvent).decode
        one, many = Octopus("one"), Octopus("many")
        one.on("files")(_handle)
        many.on("files", batch=500, within=0)(_handle_batch)
        self._one, self._many = Bound(one), Bound(many)

    def split(self) -> int:
        """Find the batches and check them."""
        self._batches()
        return self._count

    def read(self) -> int:
        """Make objects of the records, and read their values."""
        for record in self._records():
            record.value  # noqa: B018 - what a decoder would read
        return self._count

    def decoded(self) -> int:
        """Decode the values, too."""
        for record in self._records():
            self._decode(record.value or b"")
        return self._count

    def called(self) -> int:
        """Await a handler, too."""

        async def call() -> None:
            for record in self._records():
                await _handle(self._decode(record.value or b""))

        asyncio.run(call())
        return self._count

    def handled(self) -> int:
        """Run them through a runner and an app."""
        return self._through(self._one, None)

    def handled_in_batches(self) -> int:
        """The same for a handler that takes batches."""
        return self._through(self._many, 500)

    def _through(self, bound: Bound, batch: int | None) -> int:
        async def go() -> None:
            runner = Runner(bound, batch=batch)
            assignment = runner.open(TopicPartition("files", 0), 0)
            for some in _together(self._batches(), SUBMITTED):
                unread = Unread(some, _unreadable)
                runner.submit(assignment, unread, unread.offsets.stop, len(unread) * self._size)
                await runner.quiet()
            assert assignment.ledger.committable == self._count
            await runner.close()

        asyncio.run(go())
        return self._count

    def _batches(self) -> list[Batch]:
        fetched = FetchedBatches(self._frame)
        batches = [*iter(fetched.next, None)]
        assert all(batch is not None and batch.is_whole and batch.can_wait for batch in batches)
        return batches

    def _records(self) -> Iterator[StoredRecord]:
        unread = Unread(self._batches(), _unreadable)
        while some := unread.read(AT_ONCE):
            yield from some


def _frame(size: int, seed: int, headers: Iterable[tuple[str, bytes]]) -> tuple[bytes, int]:
    """Return consecutive batches as a broker sends them, and how many records are in them."""
    distinct = values(size, 1 + min(1000, FRAME_BYTES // size), seed)
    frame, offset, given = bytearray(), 0, [*headers]
    while len(frame) < FRAME_BYTES:
        builder: Any = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2 * BATCH_BYTES + size)
        count = max(1, BATCH_BYTES // size)
        for number in range(count):
            value = distinct[(offset + number) % len(distinct)]
            builder.append(number, 0, b"key-%06d" % (number % 1000), value, given)
        batch = builder.build()
        batch[:8] = offset.to_bytes(8, "big")
        frame += batch
        offset += count
    return bytes(frame), offset


def _together(batches: list[Batch], most: int) -> Iterator[list[Batch]]:
    some: list[Batch] = []
    for batch in batches:
        if some and sum(len(each.offsets) for each in some) + len(batch.offsets) > most:
            yield some
            some = []
        some.append(batch)
    yield some


def _unreadable(offset: int, error: Exception) -> Any:
    raise error


async def _handle(event: FileEvent) -> None:
    """Do nothing."""


async def _handle_batch(events: list[FileEvent]) -> None:
    """Do nothing."""
