"""One client wants much; the others do not notice."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from octopus.broker.codes import Code
from octopus.broker.faults import Faults
from octopus.broker.limits import Limits
from octopus.broker.server import Broker
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.steps import Steps, Turns
from octopus.broker.storage import Storage
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import (
    API_VERSIONS,
    CREATE_TOPICS,
    DELETE_TOPICS,
    FETCH,
    METADATA,
    PRODUCE,
    batch,
    create_topic,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.topics_on_either import ask_metadata
from tests.broker.wire_client import Start, connected, eventually


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[tuple[Broker, Faults]]:
    """A broker whose disk takes its time."""
    faults = Faults()
    async with Broker(Storage.open(tmp_path / "data", faults=faults), BrokerSettings(auto_create=True)) as broker:
        faults.sync_delay = 0.005
        yield broker, faults


CHANGES = {
    "create": (CREATE_TOPICS, 2, create_topic("large", 64)),
    "grow": (37, 0, Writer().int32(1).string("small").int32(64).int32(-1).int32(5000).boolean(False)),
    "create on first use": (METADATA, 1, Writer().int32(1).string("unknown")),
    "delete": (DELETE_TOPICS, 1, Writer().int32(1).string("small").int32(5000)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_others_are_answered_while_topics_are_changed(
    on_disk: tuple[Broker, Faults], change: tuple[int, int, Writer]
) -> None:
    broker, _ = on_disk
    async with connected(broker.address) as greedy, connected(broker.address) as other:
        await greedy.ask(CREATE_TOPICS, 2, create_topic("small", 2))
        changing = asyncio.ensure_future(greedy.ask(*change))
        answered = 0
        while not changing.done():
            assert (await other.ask(API_VERSIONS, 0)).int16() == Code.NONE
            answered += 1
        await changing
        assert answered > 2, "they had to wait until it was done"


async def test_a_topic_is_seen_when_it_is_whole_and_nobody_else_makes_it_then(on_disk: tuple[Broker, Faults]) -> None:
    broker, _ = on_disk
    async with connected(broker.address) as greedy, connected(broker.address) as other:
        await greedy.put(CREATE_TOPICS, 2, create_topic("large", 64))
        await asyncio.sleep(0)
        seen = await other.ask(CREATE_TOPICS, 2, create_topic("large", 1))
        seen.int32()
        assert (
            seen.array(lambda: (seen.string(), seen.int16(), seen.nullable_string()))[0][1] == Code.TOPIC_ALREADY_EXISTS
        )
        await greedy.take()
        (topic,) = await ask_metadata(other, 12, "large")
        assert len(topic.partitions) == 64


async def test_changes_of_several_clients_take_turns() -> None:
    turns, order = Turns(), []

    def change(name: str) -> Steps[None]:
        for number in range(3):
            yield partial(order.append, f"{name}{number}")
            yield None

    await asyncio.gather(turns.make(change("a")), turns.make(change("b")))
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def test_a_stop_ends_a_deletion_and_the_next_start_has_nothing_of_the_topic(tmp_path: Path) -> None:
    directory, faults = tmp_path / "data", Faults()
    storage = Storage.open(directory, settings=StorageSettings(durability="os"), faults=faults)
    broker = Broker(storage, BrokerSettings())
    await broker.start()
    async with connected(broker.address) as greedy:
        for name, partitions in (("small", 1), ("large", 200)):
            await greedy.ask(CREATE_TOPICS, 2, create_topic(name, partitions))
            for partition in range(partitions):
                assert (
                    produced(await greedy.ask(PRODUCE, 3, produce(name, batch(b"x"), partition=partition)))[0][0]
                    == Code.NONE
                )
        faults.sync_delay = 0.02
        await greedy.put(DELETE_TOPICS, 1, Writer().int32(1).string("large").int32(5000))
        await eventually(lambda: "large" not in storage.topics)
        await broker.stop(grace=0.01)
    storage = Storage.open(directory)
    assert list(storage.topics) == ["small"]
    assert [each.name for each in (directory / "topics").iterdir()] == [str(storage.topic("small").folder)]
    storage.close()


async def test_a_topic_that_the_disk_refuses_leaves_nothing(on_disk: tuple[Broker, Faults]) -> None:
    broker, faults = on_disk
    async with connected(broker.address) as peer:
        await peer.ask(CREATE_TOPICS, 2, create_topic("small", 1))
        faults.sync_error = 28
        answer = await peer.ask(CREATE_TOPICS, 2, create_topic("large", 20))
        answer.int32()
        assert answer.array(lambda: (answer.string(), answer.int16(), answer.nullable_string()))[0][1] == (
            Code.KAFKA_STORAGE_ERROR
        )
        faults.sync_error = 0
        await peer.ask(CREATE_TOPICS, 2, create_topic("large", 20))
        assert len((await ask_metadata(peer, 12, "large"))[0].partitions) == 20


# ── connections ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_idle_connections_make_room_for_others_first_those_that_never_asked_then_the_longest_idle(
    start: Start,
) -> None:
    broker = await start(limits=Limits(max_connections=4))
    async with AsyncExitStack() as stack:
        old, young, silent, busy = [await stack.enter_async_context(connected(broker.address)) for _ in range(4)]
        await busy.ask(CREATE_TOPICS, 2, create_topic("t"))
        await busy.put(FETCH, 4, fetch("t", max_wait=60_000))
        await old.ask(API_VERSIONS, 0)
        await young.ask(API_VERSIONS, 0)
        for gone in (silent, old, young):
            newcomer = await stack.enter_async_context(connected(broker.address))
            assert (await newcomer.ask(API_VERSIONS, 0)).int16() == Code.NONE
            assert await gone.is_closed()
        assert broker.counters()["connections_spared"] == 3
        await busy.put(API_VERSIONS, 0)
        await busy.put(API_VERSIONS, 0)
        await broker.stop()
        assert fetched((await busy.take())[1])[0][0] == Code.NONE, "one with a request under way was closed"


async def test_as_many_idle_connections_as_there_may_be_lock_nobody_out(start: Start) -> None:
    broker = await start(limits=Limits(max_connections=64))
    async with AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(connected(broker.address))
        peer = await stack.enter_async_context(connected(broker.address))
        assert (await peer.ask(API_VERSIONS, 0)).int16() == Code.NONE
        assert broker.counters()["connections_refused"] == 0


# ── large requests ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_bytes_that_are_announced_and_not_sent_take_nothing_from_others(start: Start) -> None:
    broker = await start(limits=Limits(max_in_flight_bytes=400_000))
    async with AsyncExitStack() as stack:
        for _ in range(6):
            greedy = await stack.enter_async_context(connected(broker.address))
            await greedy.send(struct.pack(">i", 100 * 2**20 - 1))
        peer = await stack.enter_async_context(connected(broker.address))
        await peer.ask(CREATE_TOPICS, 2, create_topic("t"))
        for size in (1_000, 100_000, 900_000):
            assert produced(await peer.ask(PRODUCE, 3, produce("t", batch(b"x" * size))))[0][0] == Code.NONE


async def test_a_connection_has_its_share_also_when_others_fill_everything(start: Start) -> None:
    broker = await start(limits=Limits(max_in_flight_bytes=1_000_000))
    async with AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(connected(broker.address))
        await greedy.send(struct.pack(">i", 50 * 2**20) + bytes(1_100_000))
        await eventually(lambda: broker.counters()["bytes_in_flight"] >= 1_000_000)  # type: ignore[operator]
        peer = await stack.enter_async_context(connected(broker.address))
        await peer.ask(CREATE_TOPICS, 2, create_topic("t"))
        assert produced(await peer.ask(PRODUCE, 3, produce("t", batch(b"x" * 200_000))))[0][0] == Code.NONE


async def test_a_large_request_that_does_not_arrive_makes_room_for_others(start: Start) -> None:
    broker = await start(limits=Limits(max_in_flight_bytes=1_000_000))
    async with connected(broker.address) as greedy, connected(broker.address) as peer:
        await peer.ask(CREATE_TOPICS, 2, create_topic("t"))
        await greedy.send(struct.pack(">i", 50 * 2**20) + bytes(999_000))
        await eventually(lambda: broker.counters()["bytes_in_flight"] == 999_004)
        assert produced(await peer.ask(PRODUCE, 3, produce("t", batch(b"x" * 900_000))))[0][0] == Code.NONE
        assert await greedy.is_closed()
    await eventually(lambda: broker.counters()["bytes_in_flight"] == 0)
