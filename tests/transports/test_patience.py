"""Admin clients and producers try again what may yet work, say at once what cannot, and leave nobody waiting."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from octopus.errors import NotAuthorized, TopicNotFound, TransportError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Admin, Commit, Outgoing, Producer
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.opening import open_transport

PRODUCE, LIST_OFFSETS, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 2, 8, 9, 10
DESCRIBE_GROUPS, LIST_GROUPS, CREATE_TOPICS, DELETE_TOPICS = 15, 16, 19, 20
DESCRIBE_CONFIGS, ALTER_CONFIGS, CREATE_PARTITIONS, DELETE_GROUPS = 32, 33, 37, 42
ZERO = TopicPartition("numbers", 0)


@pytest.fixture
async def broken() -> AsyncIterator[EmbeddedTransport]:
    """An embedded broker that takes faults on order, with a topic of two partitions."""
    made = open_transport("embedded://", metadata_timeout=1.0, create_topics=False)
    assert isinstance(made, EmbeddedTransport)
    await made.open()
    admin = made.admin()
    await admin.start()
    await admin.create_topic("numbers", partitions=2)
    await admin.stop()
    yield made
    await made.close()


@pytest.fixture
async def admin(broken: EmbeddedTransport) -> AsyncIterator[Admin]:
    made = broken.admin()
    await made.start()
    yield made
    await made.stop()


Starter = Callable[..., Awaitable[Producer]]


@pytest.fixture
async def publishing(broken: EmbeddedTransport) -> AsyncIterator[Starter]:
    """Starts producers, and stops them in the end."""
    started: list[Producer] = []

    async def start(**options: Any) -> Producer:
        producer = broken.producer(**options)
        await producer.start()
        started.append(producer)
        return producer

    yield start
    for producer in started:
        await producer.stop()


Deed = Callable[[Admin], Awaitable[object]]

DEEDS: dict[str, tuple[int, int, Deed]] = {
    "create a topic": (CREATE_TOPICS, 41, lambda admin: admin.create_topic("new")),
    "delete a topic": (DELETE_TOPICS, 41, lambda admin: admin.delete_topic("numbers")),
    "add partitions": (CREATE_PARTITIONS, 41, lambda admin: admin.alter_topic("numbers", partitions=3)),
    "find a coordinator": (FIND_COORDINATOR, 15, lambda admin: admin.group_offsets("g")),
    "read a group's offsets": (OFFSET_FETCH, 14, lambda admin: admin.group_offsets("g")),
    "set a group's offsets": (OFFSET_COMMIT, 16, lambda admin: admin.set_group_offsets("g", {ZERO: Commit(1)})),
    "describe a group": (DESCRIBE_GROUPS, 14, lambda admin: admin.delete_group("g")),
    "delete a group": (DELETE_GROUPS, 16, lambda admin: admin.delete_group("g")),
    "look up offsets": (LIST_OFFSETS, 6, lambda admin: admin.offsets([ZERO], "latest")),
}


@pytest.mark.parametrize("deed", DEEDS)
async def test_what_a_broker_cannot_do_yet_is_asked_again(broken: EmbeddedTransport, admin: Admin, deed: str) -> None:
    api, code, do = DEEDS[deed]
    broken.faults.fail(api, code, code)
    await do(admin)
    assert broken.faults.take(api).code == 0, "both refusals were met"


REFUSED: dict[str, tuple[int, int, Deed]] = {
    "create a topic": (CREATE_TOPICS, 29, lambda admin: admin.create_topic("new")),
    "delete a topic": (DELETE_TOPICS, 29, lambda admin: admin.delete_topic("numbers")),
    "read settings": (DESCRIBE_CONFIGS, 29, lambda admin: admin.topic_config("numbers")),
    "change settings": (ALTER_CONFIGS, 29, lambda admin: admin.alter_topic("numbers", config={"segment.ms": "9"})),
    "add partitions": (CREATE_PARTITIONS, 29, lambda admin: admin.alter_topic("numbers", partitions=3)),
    "find a coordinator": (FIND_COORDINATOR, 30, lambda admin: admin.group_offsets("g")),
    "list groups": (LIST_GROUPS, 31, lambda admin: admin.groups()),
    "read a group's offsets": (OFFSET_FETCH, 30, lambda admin: admin.group_offsets("g")),
    "set a group's offsets": (OFFSET_COMMIT, 30, lambda admin: admin.set_group_offsets("g", {ZERO: Commit(1)})),
    "describe a group": (DESCRIBE_GROUPS, 30, lambda admin: admin.delete_group("g")),
    "delete a group": (DELETE_GROUPS, 30, lambda admin: admin.delete_group("g")),
    "look up offsets": (LIST_OFFSETS, 29, lambda admin: admin.offsets([ZERO], "latest")),
}


@pytest.mark.parametrize("deed", REFUSED)
async def test_what_is_not_allowed_is_said_at_once(broken: EmbeddedTransport, admin: Admin, deed: str) -> None:
    api, code, do = REFUSED[deed]
    broken.faults.fail(api, code)
    with pytest.raises(NotAuthorized):
        await do(admin)


async def test_a_leader_that_never_comes_is_waited_for_no_longer_than_said(
    broken: EmbeddedTransport, admin: Admin
) -> None:
    broken.faults.fail(LIST_OFFSETS, *[5] * 1000)
    async with asyncio.timeout(10):
        with pytest.raises(TransportError) as caught:
            await admin.offsets([ZERO], "latest")
    assert caught.value.retryable
    broken.faults.clear()


async def test_an_admin_client_that_was_stopped_says_so(broken: EmbeddedTransport) -> None:
    admin = broken.admin()
    await admin.stop()
    with pytest.raises(TransportError, match="not running"):
        await admin.topics()


# producers


async def until(condition: Callable[[], object]) -> None:
    """Poll a condition."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_producer_that_does_not_run_says_so(broken: EmbeddedTransport) -> None:
    producer = broken.producer()
    await producer.stop()
    for publishing in (producer.send(Outgoing("numbers", b"x")), producer.send_many([Outgoing("numbers", b"x")])):
        with pytest.raises(TransportError, match="not running"):
            await publishing


async def test_more_than_may_be_in_flight_waits_and_keeps_its_order(publishing: Starter) -> None:
    producer = await publishing(max_in_flight_bytes=1, max_batch_bytes=300)
    messages = [Outgoing("numbers", b"%d" % number * 20, partition=0) for number in range(60)]
    published = await producer.send_many(messages)
    assert [each.offset for each in published] == list(range(60))


async def test_only_what_cannot_be_stored_fails(publishing: Starter) -> None:
    producer = await publishing(max_record_bytes=100)
    good, lost, large, elsewhere = await asyncio.gather(
        producer.send(Outgoing("numbers", b"x", partition=1)),
        producer.send(Outgoing("unknown", b"x")),
        producer.send(Outgoing("numbers", b"x" * 101)),
        producer.send(Outgoing("numbers", b"x", partition=9)),
        return_exceptions=True,
    )
    assert good == Published("numbers", 1, 0)
    assert isinstance(lost, TopicNotFound)
    assert "over the limit of 100 bytes" in str(large)
    assert "no partition 9" in str(elsewhere)


async def test_the_death_of_the_background_task_fails_what_waits_and_the_next_begins_anew(
    broken: EmbeddedTransport, publishing: Starter
) -> None:
    producer = await publishing()
    broken.faults.delay(PRODUCE, 1.0)
    engine = producer.engine.current  # type: ignore[attr-defined]
    on_its_way = asyncio.create_task(producer.send_many([Outgoing("numbers", b"on its way", partition=0)]))
    await until(lambda: not broken.faults._queues[PRODUCE])
    behind_it = asyncio.create_task(producer.send_many([Outgoing("numbers", b"behind it", partition=0)]))
    await until(lambda: engine._message_accumulator._batches)
    engine._sender.sender_task.cancel()
    with pytest.raises(TransportError, match="background task"):
        await behind_it
    await asyncio.wait([on_its_way])
    broken.faults.clear()
    assert (await producer.send(Outgoing("numbers", b"after", partition=1))).offset == 0
    assert producer.engine.current is not engine  # type: ignore[attr-defined]


async def test_what_comes_while_a_batch_is_on_its_way_shares_the_next(
    broken: EmbeddedTransport, publishing: Starter
) -> None:
    """Or every few records would take a round trip of their own, and a slow link would fall behind for ever."""
    producer = await publishing(linger=0.001)
    await producer.send(Outgoing("numbers", b"first", partition=0))
    broken.faults.delay(PRODUCE, 0.5, times=100)
    sends = []
    for number in range(60):
        sends.append(asyncio.create_task(producer.send(Outgoing("numbers", b"%d" % number, partition=0))))
        await asyncio.sleep(0.005)  # events come one by one, as an instrument makes them
    places = await asyncio.gather(*sends)
    assert [place.offset for place in places] == list(range(1, 61))
    unused = 0
    while broken.faults.take(PRODUCE).delay:
        unused += 1
    assert 100 - unused < 30, "requests"
