"""Nothing is acknowledged before the disk has it, and a slow or full disk stops nothing else."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from requests_and_answers import (
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
from wire_client import WireClient, connected, eventually

from octopus.broker.codes import Code
from octopus.broker.faults import Faults
from octopus.broker.server import Broker
from octopus.broker.storage import Storage
from octopus.broker.wire import Writer

DELAY = 0.15


@pytest.fixture
def disk() -> Faults:
    return Faults()


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


async def test_produce_requests_that_wait_share_one_round_of_the_disk(client: WireClient, disk: Faults) -> None:
    disk.sync_delay = DELAY
    started = time.monotonic()
    for _ in range(50):
        await client.put(PRODUCE, 3, produce("t", batch(b"x")))
    assert [produced((await client.take())[1]) for _ in range(50)] == [[(Code.NONE, n)] for n in range(50)]
    assert time.monotonic() - started < 5 * DELAY


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
