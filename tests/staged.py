"""A stage: an application whose records the test lets go one by one, apps on an in-process broker, and ways to wait."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from octopus import Octopus, config
from octopus.errors import CorruptBatch
from octopus.events import Batch, Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, Outcome
from octopus.pipeline.claims import in_turn
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.types import BatchOutcome, RunClaim
from octopus.unacknowledged import Unacknowledged
from octopus.unread import Unread
from octopus.worker import Worker

P0, P1, P2 = (TopicPartition("t", number) for number in range(3))


def record(offset: int, key: bytes | None = None, partition: TopicPartition = P0, value: bytes = b"{}") -> Record:
    return Record(partition.topic, partition.partition, offset, 0, key, value)


def records(offsets: Iterable[int], partition: TopicPartition = P0) -> list[Record]:
    return [record(offset, partition=partition) for offset in offsets]


class UnreadBatch:
    """A batch of records that exist already.

    Args:
        given: The records.
        broken_at: Where in it there is no record, whatever its header says.

    Attributes:
        framed: Whether it keeps the frame that it came in.
    """

    def __init__(self, given: Sequence[StoredRecord], broken_at: int | None = None) -> None:
        self._given = given
        self._broken_at = broken_at
        self.offsets = range(given[0].offset, given[-1].offset + 1)
        self.framed = True

    @property
    def records(self) -> Iterator[StoredRecord]:
        for number, each in enumerate(self._given):
            if number == self._broken_at:
                raise EOFError("the bytes end here")
            yield each

    def alone(self) -> "UnreadBatch":
        copy = UnreadBatch(self._given, self._broken_at)
        copy.framed = False
        return copy


def unread(given: Sequence[StoredRecord], in_a_batch: int = 3, broken_at: int | None = None) -> Unread:
    """Hand over records as a transport does that has not read them. Their offsets must be consecutive.

    Args:
        given: The records.
        in_a_batch: How many.
        broken_at: Where among them there is none.
    """
    starts = range(0, len(given), in_a_batch)
    batches = [
        UnreadBatch(given[start : start + in_a_batch], None if broken_at is None else broken_at - start)
        for start in starts
    ]
    return Unread(batches, lambda offset, error: CorruptBatch(f"{offset}: {error}"))


class Stage:
    """Holds every record until the test says what becomes of it.

    Attributes:
        started: Partition, offset and attempt of every run, in order.
        running: What has not come back, per partition.
    """

    def __init__(self) -> None:
        self.started: list[tuple[int, int, int]] = []
        self.running: dict[TopicPartition, dict[int, asyncio.Future[Outcome | BatchOutcome]]] = defaultdict(dict)
        self.cancelled: list[int] = []
        self.batches: list[list[int]] = []

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        async def run(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
            if isinstance(stored, Batch):
                self.batches.append([each.offset for each in stored])
            self.started.append((partition.partition, stored.offset, attempt))
            future = asyncio.get_running_loop().create_future()
            self.running[partition][stored.offset] = future
            try:
                return await future
            except asyncio.CancelledError:
                self.cancelled.append(stored.offset)
                raise
            finally:
                self.running[partition].pop(stored.offset, None)

        return in_turn(run)

    @property
    def offsets(self) -> list[int]:
        """Offsets in the order in which they started."""
        return [offset for _, offset, _ in self.started]

    async def end(self, *offsets: int, outcome: Outcome | BatchOutcome = DONE, partition: TopicPartition = P0) -> None:
        """Let runs return, and everybody act on it."""
        for offset in offsets:
            self.running[partition][offset].set_result(outcome)
        await turns()

    async def fail(self, offset: int, error: BaseException, partition: TopicPartition = P0) -> None:
        """Let a run raise."""
        self.running[partition][offset].set_exception(error)
        await turns()


async def turns(count: int = 20) -> None:
    """Let everything happen that needs no time."""
    for _ in range(count):
        await asyncio.sleep(0)


PATIENCE = 30.0
"""Seconds that a condition in real time has at least: a machine may be busy, and a test that passes waits for none of them."""


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for a condition; in virtual time this takes none, and the condition has just these `seconds`."""
    is_virtual = "time" in vars(asyncio.get_running_loop())
    async with asyncio.timeout(seconds if is_virtual else max(seconds, PATIENCE)):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def working(
    app: Octopus,
    broker: MemoryBroker | None = None,
    *,
    threaded: bool = False,
    only: Sequence[str] = (),
    clock: Callable[[], float] = time.time,
    **given: Any,
) -> AsyncIterator[Worker]:
    """Run an app on an in-process broker whose topics have one partition unless the test says."""
    settings = config.load(config.merge({"topics": {"partitions": 1}}, app.settings, given))
    transport = MemoryTransport(broker or MemoryBroker())
    async with Worker(app, settings, transport=transport, threaded=threaded, only=only, clock=clock) as worker:
        yield worker


@asynccontextmanager
async def killed(app: Octopus, broker: MemoryBroker, **given: Any) -> AsyncIterator[Worker]:
    """Run an app and end it as a kill would: what the broker has of its groups is what it had at that moment."""
    async with working(app, broker, **given) as worker:
        yield worker
        offsets = {name: dict(group.offsets) for name, group in broker.groups.items()}
    for name, stored in offsets.items():
        broker.group(name).offsets = stored


def committed(broker: MemoryBroker, group: str, partition: TopicPartition = P0) -> int | None:
    """Return a group's committed offset."""
    commit = broker.group(group).offsets.get(partition)
    return None if commit is None else commit.offset


def publish(broker: MemoryBroker, *values: Any, topic: str = "t", key: bytes | None = None, **given: Any) -> None:
    """Store JSON values behind everybody's back."""
    broker.append([Outgoing(topic, msgspec.json.encode(value), key, **given) for value in values])


def dead_letters(broker: MemoryBroker, topic: str = "t") -> list[Record]:
    """Return what was dead-lettered."""
    logs = broker.topics.get(f"{topic}.dead-letter", [])
    return [each for log in logs for each in log.records if each is not None]
