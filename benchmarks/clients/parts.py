"""The ledger, the lanes and the runner, each by itself."""

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks.clients.timing import per_item
from benchmarks.records import values
from benchmarks.structs import FileEvent
from benchmarks.task import Task
from octopus import Batch, Next, Octopus, Outcome, Record, config
from octopus.events import TopicPartition
from octopus.runner import Runner
from octopus.runner.commit_metadata import encode_map
from octopus.runner.lanes import LANES
from octopus.runner.ledger import OffsetLedger
from octopus.transports.memory import MemoryTransport
from octopus.types import RunClaim
from octopus.unacknowledged import Unacknowledged

RECORDS = 50_000
TURN = 500


class Stored(NamedTuple):
    """As a client library hands it over."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def run(task: Task) -> dict[str, float]:
    """Measure what the case names."""
    ways: dict[str, Callable[[Task], Callable[[], int]]] = {
        "ledger": ledger,
        "map": offset_map,
        "lanes": lanes,
        "bare": bare,
        "runner": through_runner,
        "awaiting": awaiting,
    }
    return {"nanoseconds": per_item(ways[task.options["way"]](task))}


def awaiting(task: Task) -> Callable[[], int]:
    """Have 1,000 futures awaited with `gather`, each through so many coroutines; it makes a task where there is one."""
    depth, at_once, rounds = task.options["depth"], 1000, 20

    async def through(future: asyncio.Future[None], more: int) -> None:
        await (through(future, more - 1) if more > 1 else future)

    async def gather() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(rounds):
            futures = [loop.create_future() for _ in range(at_once)]
            gathered = asyncio.gather(*[through(each, depth) if depth else each for each in futures])
            await asyncio.sleep(0)
            for each in futures:
                each.set_result(None)
            await gathered

    def wait() -> int:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(gather())
        return rounds * at_once

    return wait


def ledger(task: Task) -> Callable[[], int]:
    """Receive records and settle them in an order that is shuffled within a window."""
    window, draw = task.options["window"], random.Random(task.seed)
    turns = []
    for start in range(0, RECORDS, TURN):
        offsets = [*range(start, start + TURN)]
        order: list[int] = []
        for at in range(0, TURN, window):
            part = offsets[at : at + window]
            order += draw.sample(part, len(part))
        turns.append((offsets, order))

    def settle() -> int:
        ledger = OffsetLedger(0)
        for offsets, order in turns:
            ledger.receive(offsets, offsets[-1] + 1)
            for offset in order:
                ledger.settle(offset)
            assert ledger.committable == offsets[-1] + 1
        return RECORDS

    return settle


def offset_map(task: Task) -> Callable[[], int]:
    """Write a map of many ranges; a call is an item."""
    ranges = [(2 * number, 2 * number) for number in range(1, 1001)]

    def write() -> int:
        for _ in range(20):
            assert encode_map(0, ranges)
        return 20

    return write


def lanes(task: Task) -> Callable[[], int]:
    """Put, take and release."""
    kind, records = LANES[task.options["ordering"]], stored(task.options.get("keys", 1000), task)
    turns = [records[start : start + TURN] for start in range(0, RECORDS, TURN)]

    def through() -> int:
        lanes = kind()
        for turn in turns:
            lanes.put(turn)
            while taken := lanes.take(64):
                lanes.release(taken)
        return RECORDS

    return through


def bare(task: Task) -> Callable[[], int]:
    """Decode and await, with nothing around it."""
    records = stored(1000, task)
    decode = msgspec.json.Decoder(FileEvent).decode

    async def loop() -> None:
        for record in records:
            await handle(decode(record.value))

    def through() -> int:
        asyncio.run(loop())
        return RECORDS

    return through


def through_runner(task: Task) -> Callable[[], int]:
    """An app with one handler in a runner, 500 records a turn, as the worker feeds it."""
    records = stored(1000, task)
    turns = [records[start : start + TURN] for start in range(0, RECORDS, TURN)]
    app = Octopus("bench")
    app.on("files", ordering=task.options["ordering"], concurrency=64)(handle)
    for _ in range(task.options.get("middleware", 0)):
        app.middleware(hand_on)

    async def loop() -> None:
        runner = Runner(Bound(app), ordering=task.options["ordering"], concurrency=64)
        assignment = runner.open(TopicPartition("files", 0), 0)
        for turn in turns:
            runner.submit(assignment, turn, turn[-1].offset + 1, TURN * 463)
            await runner.quiet()
        assert assignment.ledger.committable == RECORDS
        await runner.close()

    def through() -> int:
        asyncio.run(loop())
        return RECORDS

    return through


async def hand_on(record: Record | Batch, call_next: Next) -> Outcome:
    """Do nothing, as middleware."""
    return await call_next(record)


class Bound:
    """What a worker makes of an app."""

    def __init__(self, app: Octopus) -> None:
        [self._pipeline] = app.pipelines(MemoryTransport().producer(), config.load({}))

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the path of a partition's records."""
        return self._pipeline.bind(partition)


async def handle(event: FileEvent) -> None:
    """Do nothing."""


def stored(keys: int, task: Task) -> list[Stored]:
    """Return records with keys drawn at random."""
    draw, distinct = random.Random(task.seed), values(463, 1000, task.seed)
    return [
        Stored(offset, 0, b"key-%06d" % draw.randrange(keys), distinct[offset % len(distinct)])
        for offset in range(RECORDS)
    ]
