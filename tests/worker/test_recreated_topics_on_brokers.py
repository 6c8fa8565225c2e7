"""Topics that are deleted and made again under a worker, on the embedded broker and on Apache Kafka, with each client library."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, config
from octopus.errors import TopicNotFound
from octopus.events import TopicPartition
from octopus.runner.commit_metadata import topic_id_of
from octopus.testing.faults import ChildProcess, python_module
from octopus.transports.base import Admin, Commit, Outgoing, Transport
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka import KafkaTransport
from octopus.worker import Worker

KAFKA = pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])
PATIENCE = 60.0
QUICK: dict[str, Any] = {
    "consumer": {"session_timeout": 6, "rebalance_timeout": 12, "metadata_max_age": 2},
    "worker": {"commit_interval": 0.1},
}


@pytest.fixture(params=["embedded", KAFKA])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where the broker is."""
    if request.param == "kafka":
        yield request.getfixturevalue("kafka_cluster")
        return
    broker = EmbeddedTransport(mode="thread")
    await broker.open()
    yield broker.address
    await broker.close()


@pytest.fixture(params=["aiokafka", "librdkafka"])
def engine(request: pytest.FixtureRequest) -> str:
    """Which client library reads."""
    name: str = request.param
    return name


class Bench:
    """A topic of two partitions, and an app that reads it.

    Attributes:
        seen: What was handled.
    """

    def __init__(self, address: str, engine: str) -> None:
        token = secrets.token_hex(4)
        self.topic, self.group = f"again-{token}", f"again-{token}.handle"
        self.seen: list[int] = []
        self.admin: Admin
        self._engine = engine
        self._transport: Transport = KafkaTransport.at(address, {})
        self._address = address

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Bench"]:
        self.admin = self._transport.admin()
        await self.admin.start()
        try:
            await self.admin.create_topic(self.topic, partitions=2)
            yield self
        finally:
            await self.admin.stop()

    @asynccontextmanager
    async def working(self, recreated: str = "stop", **options: Any) -> AsyncIterator[Worker]:
        """Run the app."""
        app = Octopus(self.topic)

        @app.on(self.topic, name="handle", **options)
        async def handle(event: Event[int]) -> Any:  # a value only where `to` says where it goes
            self.seen.append(event.value)
            return event.value if "to" in options else None

        given = {"brokers": [self._address], "consumer": {"engine": self._engine, "recreated_topics": recreated}}
        settings = config.load(config.merge(QUICK, given))
        async with Worker(app, settings) as worker:
            yield worker

    async def publish(self, *values: int) -> None:
        """Store values in turn in both partitions, by a client that knows of no earlier topic."""
        producer = self._transport.producer()
        await producer.start()
        try:
            async with asyncio.timeout(PATIENCE):
                for value in values:
                    while True:
                        try:
                            await producer.send(Outgoing(self.topic, b"%d" % value, partition=value % 2))
                            break
                        except TopicNotFound:  # it takes a moment until brokers have heard of it
                            await asyncio.sleep(0.05)
        finally:
            await producer.stop()

    async def recreate(self, *values: int) -> None:
        """Delete the topic, make it again, and publish to it."""
        await self.admin.delete_topic(self.topic)
        await self.admin.create_topic(self.topic, partitions=2)
        await self.publish(*values)

    async def committed(self) -> dict[int, Commit]:
        """Return what the group has committed, by partition."""
        return {place.partition: commit for place, commit in (await self.admin.group_offsets(self.group)).items()}

    async def outputs(self) -> list[int]:
        """Return what readers of committed records see of the topic of outputs."""
        consumer = self._transport.consumer(f"judge-{secrets.token_hex(4)}", [f"{self.topic}.out"])
        listener = _FromTheBeginning(consumer)
        await consumer.start(listener)
        found: list[int] = []
        try:
            async with asyncio.timeout(PATIENCE):
                while not listener.ends or sum(listener.at.values()) < sum(listener.ends.values()):
                    for each in await consumer.fetch(listener.ends, max_records=1000, timeout=0.1):
                        assert hasattr(each, "records")
                        found += [msgspec.json.decode(record.value) for record in each.records]
                        listener.at[each.partition] = each.next_offset
        finally:
            await consumer.stop()
        return found


class _FromTheBeginning:
    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.ends: dict[TopicPartition, int] = {}
        self.at: dict[TopicPartition, int] = {}

    async def assigned(self, partitions: Any) -> None:
        self.at = dict.fromkeys(partitions, 0)
        await self._consumer.seek(self.at)
        self.ends = await self._consumer.offsets(partitions, "latest")

    async def revoked(self, partitions: Any) -> None:
        self.ends = {}

    lost = revoked


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


def unreadable(worker: Worker) -> dict[str, str]:
    return {place: text for group in worker.status().groups for place, text in group.unreadable.items()}


async def test_a_topic_that_is_made_again_stops_until_the_group_is_reset(address: str, engine: str) -> None:
    async with Bench(address, engine).open() as bench:
        async with bench.working() as worker:
            await bench.publish(*range(20))
            await until(lambda: len(bench.seen) == 20)
            (old,) = (await bench.admin.topic_ids([bench.topic])).values()
            await bench.recreate(*range(100, 140))
            await until(lambda: len(unreadable(worker)) == 2)
            (new,) = (await bench.admin.topic_ids([bench.topic])).values()
            for text in unreadable(worker).values():
                assert "was deleted and made again" in text
                assert f"its id was {old}" in text
                assert f"it is {new}" in text
        if engine == "aiokafka":
            assert sorted(bench.seen) == [*range(20)]
        marks = [(commit.offset, topic_id_of(commit.metadata)) for commit in (await bench.committed()).values()]
        assert marks == [(0, old)] * 2
        async with bench.working() as worker:
            await until(lambda: len(unreadable(worker)) == 2)
        places = {TopicPartition(bench.topic, number): Commit(0) for number in range(2)}
        await bench.admin.set_group_offsets(bench.group, places)
        bench.seen.clear()
        async with bench.working() as worker:
            await until(lambda: {*bench.seen} >= {*range(100, 140)})
            assert not unreadable(worker)
        assert sorted(bench.seen) == [*range(100, 140)]
        stored = [(commit.offset, topic_id_of(commit.metadata)) for commit in (await bench.committed()).values()]
        assert stored == [(20, new)] * 2


async def test_a_topic_that_is_made_again_is_read_whole_and_again_and_again(address: str, engine: str) -> None:
    async with Bench(address, engine).open() as bench, bench.working("earliest", start="latest") as worker:
        await until(lambda: any(group.partitions for group in worker.status().groups))
        await bench.publish(*range(20))
        await until(lambda: len(bench.seen) == 20)
        for life in (100, 200):
            await bench.recreate(*range(life, life + 40))
            await until(lambda life=life: {*bench.seen} >= {*range(life, life + 40)})
        (new,) = (await bench.admin.topic_ids([bench.topic])).values()
        async with asyncio.timeout(PATIENCE):
            while {(c.offset, topic_id_of(c.metadata)) for c in (await bench.committed()).values()} != {(20, new)}:
                await asyncio.sleep(0.05)
        if engine == "aiokafka":
            assert sorted(bench.seen) == [*range(20), *range(100, 140), *range(200, 240)]


async def test_exactly_once_the_outputs_of_the_old_and_of_the_new_topic_are_there(address: str, engine: str) -> None:
    async with Bench(address, engine).open() as bench:
        await bench.admin.create_topic(f"{bench.topic}.out")
        async with bench.working("earliest", delivery="exactly_once", to=f"{bench.topic}.out") as worker:
            await bench.publish(*range(20))
            await until(lambda: len(bench.seen) == 20)
            await bench.recreate(*range(100, 140))
            await until(lambda: {*bench.seen} >= {*range(100, 140)})
            async with asyncio.timeout(PATIENCE):
                await worker.caught_up()
        outputs = sorted(await bench.outputs())
        assert {*outputs} == {*range(20), *range(100, 140)}
        if engine == "aiokafka":  # the other reads on for a moment, which cannot be told from what it should have read
            assert outputs == [*range(20), *range(100, 140)]


APP = """
import asyncio, os
from octopus import Event, Octopus

app = Octopus({topic!r})
diary = os.open("diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@app.on({topic!r}, name="handle", delivery={delivery!r})
async def handle(event: Event[int]) -> None:
    if event.value in (18, 19):
        await asyncio.sleep(2)  # so that something is left to commit when it thaws
    os.write(diary, b"%d\\n" % event.value)
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("recreated", "delivery", "expelled"),
    [
        ("stop", "at_least_once", False),
        ("stop", "exactly_once", True),
        ("earliest", "at_least_once", True),
        ("earliest", "exactly_once", False),
    ],
    ids=["stop", "stop, exactly once, its session ended", "earliest, its session ended", "earliest, exactly once"],
)
async def test_a_worker_that_is_frozen_while_its_topic_is_made_again_commits_nothing_of_the_old_to_the_new(
    address: str, engine: str, recreated: str, delivery: str, expelled: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [f"consumer.engine={engine}", f"consumer.recreated_topics={recreated}"]
    settings += [f"{part}.{name}={value}" for part, given in QUICK.items() for name, value in given.items()]
    options = [f"--config={each}" for each in settings]
    command = python_module("octopus", "run", "app.py", "--brokers", address, *options)
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def seen() -> list[int]:
        return [int(line) for line in Path("diary").read_text().split()] if Path("diary").exists() else []

    async with Bench(address, engine).open() as bench:

        async def stored() -> set[tuple[int, str | None]]:
            return {(each.offset, topic_id_of(each.metadata)) for each in (await bench.committed()).values()}

        async def until_stored(*wanted: tuple[int, str | None]) -> None:
            async with asyncio.timeout(PATIENCE):
                while len(await bench.committed()) != 2 or await stored() != {*wanted}:
                    assert worker.is_running, worker.written()
                    await asyncio.sleep(0.05)

        Path("app.py").write_text(APP.format(topic=bench.topic, delivery=delivery))
        await bench.publish(*range(20))
        (old,) = (await bench.admin.topic_ids([bench.topic])).values()
        with ChildProcess(command, log=tmp_path / "log", environment=environment) as worker:
            await until_stored((9, old))
            worker.freeze()
            if expelled:
                async with asyncio.timeout(PATIENCE):
                    while (await bench.admin.group(bench.group)).members:
                        await asyncio.sleep(0.1)
            await bench.recreate(*range(100, 140))
            (new,) = (await bench.admin.topic_ids([bench.topic])).values()
            worker.thaw()
            if recreated == "stop":
                await until(lambda: "was deleted and made again: its id was" in worker.written())
                await until_stored((0, old))
            else:
                await until(lambda: {*seen()} >= {*range(100, 140)})
                await until_stored((20, new))
            worker.terminate()
            assert await worker.ended(PATIENCE) == (4 if recreated == "stop" else 0), worker.written()
        assert await stored() == ({(0, old)} if recreated == "stop" else {(20, new)})
        if engine == "aiokafka":
            assert [value for value in sorted(seen()) if value >= 100] == (
                [] if recreated == "stop" else [*range(100, 140)]
            )


async def test_a_broker_that_is_replaced_by_an_empty_one_is_noticed(engine: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    broker = EmbeddedTransport(mode="thread", port=port)
    await broker.open()
    bench = Bench(f"127.0.0.1:{port}", engine)
    async with bench.open():
        async with bench.working("earliest", start="latest") as worker:
            await until(lambda: any(group.partitions for group in worker.status().groups))
            await bench.publish(*range(20))
            await until(lambda: len(bench.seen) == 20)
            await broker.close()
            await broker.open()
            async with bench.open():
                await bench.publish(*range(100, 140))
                await until(lambda: {*bench.seen} >= {*range(100, 140)})
        await broker.close()
