"""Retries that wait in a topic while workers are killed, on real brokers."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from octopus.events import TopicPartition
from octopus.testing.faults import ChildProcess, EmbeddedBroker, python_module
from octopus.transports.base import Admin, Outgoing, Producer
from octopus.transports.kafka import KafkaSettings, KafkaTransport
from tests.worker.retrying import PARTITIONS, Plan, runs

pytestmark = pytest.mark.process

KAFKA = pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])
SHORT = {"consumer": {"session_timeout": 1.5, "rebalance_timeout": 6}}
"""A dead member is noticed soon; the embedded broker of tests allows it."""
COUNT = 20


@pytest.fixture(params=["embedded", KAFKA])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> "AsyncIterator[Bench]":
    if request.param == "kafka":
        async with Bench(request.getfixturevalue("kafka_cluster"), tmp_path) as bench:
            yield bench
    else:
        async with EmbeddedBroker(tmp_path / "broker") as broker, Bench(broker.address, tmp_path) as bench:
            bench.plan.settings = SHORT
            yield bench


@pytest.fixture
def processes() -> Iterator[list[ChildProcess]]:
    """Worker processes, ended afterwards."""
    started: list[ChildProcess] = []
    yield started
    for process in started:
        process.kill()


class Bench:
    """Topics, a worker process, and ways to look at both."""

    def __init__(self, brokers: str, directory: Path) -> None:
        self.plan = Plan(brokers, str(directory / "diary"))
        self._directory = directory
        self._transport = KafkaTransport(KafkaSettings(brokers=brokers, metadata_max_age=2.0))
        self.admin: Admin = self._transport.admin()
        self._producer: Producer = self._transport.producer()

    async def __aenter__(self) -> "Bench":
        await self.admin.start()
        await self._producer.start()
        await self.admin.create_topic(self.plan.name, partitions=PARTITIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self.admin.stop()

    def start(self) -> ChildProcess:
        plan = msgspec.json.encode(self.plan).decode()
        log = self._directory / f"worker-{time.monotonic_ns()}.log"
        return ChildProcess(python_module("tests.worker.retrying", plan), log=log).start()

    async def publish(self) -> None:
        messages = [Outgoing(self.plan.name, b"%d" % number, b"k%d" % number) for number in range(COUNT)]
        await self._producer.send_many(messages)

    async def committed(self, group: str) -> int:
        found = await self.admin.group_offsets(group)
        return sum(max(commit.offset, 0) for commit in found.values())

    async def stored(self, topic: str) -> int:
        if topic not in {info.name for info in await self.admin.topics()}:
            return 0
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        return sum((await self.admin.offsets(places, "latest")).values())

    async def outputs(self) -> list[int]:
        """What readers of committed records see."""
        topic = f"{self.plan.name}.out"
        if topic not in {info.name for info in await self.admin.topics()}:
            return []
        reader = Reader(self._transport, topic)
        return [int(value) for value in await reader.read(await self.stored(topic))]

    async def published(self) -> None:
        """Wait until every event has its output, and see that none has two."""
        async with asyncio.timeout(60):
            while sorted(outputs := await self.outputs()) != [*range(COUNT)]:
                assert len(outputs) <= COUNT
                await asyncio.sleep(0.2)

    async def until(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.02)

    async def finished(self) -> None:
        """Wait until every event has had all of its runs."""
        await self.until(
            lambda: len(found := runs(self.plan)) == COUNT and all(len(each) >= 3 for each in found.values())
        )


class Reader:
    """Reads a topic from its beginning, committed records only."""

    def __init__(self, transport: KafkaTransport, topic: str) -> None:
        self._consumer = transport.consumer(f"reader-{time.monotonic_ns()}", [topic], isolation="read_committed")
        self._topic = topic
        self._found: list[bytes] = []
        self._positions = dict.fromkeys((TopicPartition(topic, number) for number in range(PARTITIONS)), 0)
        self._mine: set[TopicPartition] = set()

    async def assigned(self, partitions: set[TopicPartition]) -> None:
        await self._consumer.seek(dict.fromkeys(partitions, 0))
        self._mine |= set(partitions)

    async def revoked(self, partitions: set[TopicPartition]) -> None: ...
    async def lost(self, partitions: set[TopicPartition]) -> None: ...

    async def read(self, end: int) -> list[bytes]:
        await self._consumer.start(self)
        try:
            async with asyncio.timeout(30):
                while sum(self._positions.values()) < end:
                    for fetched in await self._consumer.fetch(self._mine, max_records=500, timeout=0.2):
                        self._found += [record.value for record in fetched.records]
                        self._positions[fetched.partition] = fetched.next_offset
        finally:
            await self._consumer.stop()
        return self._found


@pytest.mark.parametrize("asks", [False, True], ids=["fails", "asks for it"])
async def test_a_retry_that_waits_survives_a_kill_with_its_due_time_and_its_attempt(
    asks: bool, bench: Bench, processes: list[ChildProcess]
) -> None:
    plan = bench.plan
    plan.asks, plan.wait = asks, 8.0
    processes.append(worker := bench.start())
    await bench.publish()
    await bench.until(lambda: len(runs(plan)) == COUNT)
    async with asyncio.timeout(20):
        while await bench.committed(f"{plan.name}.handle") < COUNT:
            await asyncio.sleep(0.05)
    worker.kill()
    processes.append(bench.start())
    await bench.finished()
    attempts = [1, 1, 1] if asks else [1, 2, 3]
    late = []
    for value, ran in runs(plan).items():
        assert [run.attempt for run in ran] == attempts, value
        assert len({(run.topic, run.offset) for run in ran}) == 1
        assert ran[0].topic == plan.name
        waits = [after.at - before.at for before, after in itertools.pairwise(ran)]
        assert min(waits) >= plan.wait
        late.append(max(waits) - plan.wait)
    assert max(late) < 3, "the new worker was up in time, so nothing came late"
    await bench.published()


async def test_a_kill_between_the_retrys_publication_and_the_commit_repeats_and_does_not_lose(
    bench: Bench, processes: list[ChildProcess]
) -> None:
    plan = bench.plan
    plan.wait = 1.0
    plan.settings = {**plan.settings, "worker": {"commit_interval": 600}}
    processes.append(worker := bench.start())
    await bench.publish()
    async with asyncio.timeout(60):
        while await bench.stored(f"{plan.name}.handle.retry") < COUNT:
            await asyncio.sleep(0.02)
    worker.kill()
    assert await bench.committed(f"{plan.name}.handle") == 0
    processes.append(bench.start())
    await bench.until(lambda: all([run.attempt for run in ran].count(3) >= 2 for ran in runs(plan).values()))
    for ran in runs(plan).values():
        attempts = Counter(run.attempt for run in ran)
        assert attempts[1] == 2
        assert attempts[2] >= 2, "once for each time that the first attempt was deferred, at least"


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_outputs_are_visible_once_although_workers_die_while_retries_come_and_go(
    seed: int, bench: Bench, processes: list[ChildProcess]
) -> None:
    plan, chance = bench.plan, random.Random(seed)
    plan.delivery, plan.wait = "exactly_once", 1.0
    processes.append(bench.start())
    await bench.publish()
    await bench.until(lambda: len(runs(plan)) > 5)
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        processes[-1].kill()
        processes.append(bench.start())
        seen = sum(map(len, runs(plan).values()))
        await bench.until(lambda seen=seen: sum(map(len, runs(plan).values())) > seen or finished_all(plan))
    await bench.published()
    await asyncio.sleep(2 * plan.wait)
    assert sorted(await bench.outputs()) == [*range(COUNT)]


def finished_all(plan: Plan) -> bool:
    return len(runs(plan)) == COUNT and all(max(run.attempt for run in ran) == 3 for ran in runs(plan).values())
