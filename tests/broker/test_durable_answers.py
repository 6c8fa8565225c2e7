"""Nothing is acknowledged before the disk has it, and a slow or full disk stops nothing else."""

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octopus.broker.codes import Code
from octopus.broker.faults import Faults
from octopus.broker.server import Broker
from octopus.broker.storage import Storage
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import (
    API_VERSIONS,
    CREATE_TOPICS,
    FETCH,
    INIT_PRODUCER_ID,
    OFFSET_COMMIT,
    PRODUCE,
    batch,
    create_topic,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.wire_client import WireClient, connected, eventually

DELAY = 0.15


class Held(Faults):
    """A disk that can be held up; counts its syncs from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._free = threading.Event()
        self._free.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no sync end within."""
        self.count = 0
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def before_sync(self) -> None:
        self.count += 1
        self._free.wait()
        super().before_sync()


@pytest.fixture
def disk() -> Held:
    return Held()


@pytest.fixture
async def broker(tmp_path: Path, disk: Faults) -> AsyncIterator[Broker]:
    async with Broker(Storage.open(tmp_path / "data", faults=disk)) as broker:
        async with connected(broker.address) as client:
            await client.ask(CREATE_TOPICS, 2, create_topic("t"))
            await client.ask(INIT_PRODUCER_ID, 0, Writer().string(None).int32(1000))  # reserves ids, once in a while
        yield broker
        disk.sync_delay, disk.sync_error, disk.space = 0.0, 0, None


def commit() -> Writer:
    body = Writer().string("g").int32(-1).string("").int64(-1)
    return body.int32(1).string("t").int32(1).int32(0).int64(5).string("")


@pytest.mark.parametrize(
    ("key", "version", "body"),
    [
        (PRODUCE, 3, produce("t", batch(b"x"))),
        (OFFSET_COMMIT, 2, commit()),
        (INIT_PRODUCER_ID, 0, Writer().string("x").int32(1000)),
    ],
    ids=["Produce", "OffsetCommit", "InitProducerId"],
)
async def test_an_answer_comes_after_the_disk_and_nobody_else_waits_for_it(
    broker: Broker, client: WireClient, disk: Faults, key: int, version: int, body: Writer
) -> None:
    disk.sync_delay = DELAY
    started = time.monotonic()
    await client.put(key, version, body)
    async with connected(broker.address) as other:
        await other.ask(API_VERSIONS, 0)
        assert time.monotonic() - started < DELAY
    await client.take()
    assert time.monotonic() - started >= DELAY


async def test_produce_requests_that_wait_share_one_round_of_the_disk(
    broker: Broker, client: WireClient, disk: Held
) -> None:
    await client.ask(
        PRODUCE, 3, produce("t", batch(b"first"))
    )  # makes the partition's files, whose names are synced too
    with disk.held():
        for _ in range(50):
            await client.put(PRODUCE, 3, produce("t", batch(b"x")))
        await eventually(lambda: broker.counters()["requests"]["Produce"] == 51)
    assert [produced((await client.take())[1]) for _ in range(50)] == [[(Code.NONE, n)] for n in range(1, 51)]
    assert disk.count <= 2, "one that the first of them began, and one for all that came meanwhile"


async def test_the_first_requests_of_a_partition_share_one_round_of_the_disk_with_the_names_of_its_files(
    broker: Broker, client: WireClient, disk: Held
) -> None:
    with disk.held():
        for _ in range(50):
            await client.put(PRODUCE, 3, produce("t", batch(b"x")))
        await eventually(lambda: broker.counters()["requests"].get("Produce") == 50)
    assert [produced((await client.take())[1]) for _ in range(50)] == [[(Code.NONE, n)] for n in range(50)]
    assert disk.count <= 5, "the file and three directories, once, and the file for all that came meanwhile"


async def test_records_are_not_fetched_before_they_are_durable(
    broker: Broker, client: WireClient, disk: Faults
) -> None:
    disk.sync_delay = DELAY
    await client.put(FETCH, 4, fetch("t", max_wait=10_000))
    started = time.monotonic()
    async with connected(broker.address) as producer:
        await producer.put(PRODUCE, 3, produce("t", batch(b"x")))
        assert fetched(await producer_free_fetch(broker))[0][2] == b""
        [(code, _, records)] = fetched((await client.take())[1])
    assert (code, bool(records)) == (Code.NONE, True)
    assert time.monotonic() - started >= DELAY


async def producer_free_fetch(broker: Broker) -> object:
    async with connected(broker.address) as client:
        return await client.ask(FETCH, 4, fetch("t"))


async def test_a_full_disk_refuses_writes_stays_readable_and_recovers(client: WireClient, disk: Faults) -> None:
    await client.ask(PRODUCE, 3, produce("t", batch(b"kept")))
    disk.space = 30
    assert produced(await client.ask(PRODUCE, 3, produce("t", batch(b"lost"))))[0][0] == Code.KAFKA_STORAGE_ERROR
    assert b"kept" in fetched(await client.ask(FETCH, 4, fetch("t")))[0][2]
    disk.space = None
    assert produced(await client.ask(PRODUCE, 3, produce("t", batch(b"more")))) == [(Code.NONE, 1)]


async def test_a_disk_that_fails_to_sync_acknowledges_nothing(client: WireClient, disk: Faults) -> None:
    disk.sync_error = errno.EIO
    answers = [produced(await client.ask(PRODUCE, 3, produce("t", batch(b"lost"))))[0][0] for _ in range(2)]
    assert set(answers) == {Code.KAFKA_STORAGE_ERROR}
    disk.sync_error = 0

    async def is_writable() -> bool:
        return produced(await client.ask(PRODUCE, 3, produce("t", batch(b"kept")))) == [(Code.NONE, 0)]

    await eventually(is_writable)
    assert b"lost" not in fetched(await client.ask(FETCH, 4, fetch("t")))[0][2]


async def test_stopping_waits_for_what_is_on_its_way_to_the_disk(
    broker: Broker, client: WireClient, disk: Faults
) -> None:
    disk.sync_delay = DELAY
    await client.put(PRODUCE, 3, produce("t", batch(b"x")))
    await eventually(lambda: broker.counters()["requests"].get("Produce") == 1)
    stopping = asyncio.create_task(broker.stop())
    assert produced((await client.take())[1]) == [(Code.NONE, 0)]
    await stopping
