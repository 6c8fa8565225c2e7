"""Transactions of every transport: all or nothing, offsets included, and one owner at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from octopus.errors import PartitionLost, RecordTooLarge, TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Commit, Outgoing, Producer, TransactionalProducer, Transport

from .conftest import Join
from .engines import KAFKA, KIP_848_ON_KAFKA, TRANSPORTS
from .members import together

on_both_engines = pytest.mark.parametrize(
    "transport", [*TRANSPORTS, "embedded librdkafka cooperative", KIP_848_ON_KAFKA], indirect=True
)

Own = Callable[[str], Awaitable[TransactionalProducer]]


@pytest.fixture
async def own(transport: Transport) -> AsyncIterator[Own]:
    """Starts transactional producers, and stops them in the end."""
    made: list[TransactionalProducer] = []

    async def start(transactional_id: str) -> TransactionalProducer:
        producer = transport.transactional_producer(transactional_id)
        await producer.start()
        made.append(producer)
        return producer

    yield start
    for producer in made:
        await producer.stop()


@on_both_engines
async def test_a_transaction_shows_everything_at_its_end_and_not_before(
    own: Own, admin: Admin, topic: str, join: Join, fresh: str
) -> None:
    producer, place = await own(fresh), TopicPartition(topic, 0)
    reader = await join(f"{fresh}-reader", topic)
    await producer.begin()
    await producer.send_many([Outgoing(topic, b"%d" % number, partition=number) for number in range(3)])
    await producer.send_offsets(fresh, {place: Commit(7, "a map")})
    for _ in range(3):
        await reader.turn()
    assert reader.count == 0
    assert (await admin.group_offsets(fresh)).get(place) is None
    await producer.commit()
    await reader.until(lambda: reader.count == 3)
    assert sorted(map(bytes, reader.values())) == [b"0", b"1", b"2"]  # type: ignore[arg-type]
    assert (await admin.group_offsets(fresh))[place] == Commit(7, "a map")


@on_both_engines
async def test_what_is_aborted_is_never_seen_and_does_not_stand_in_the_way(
    own: Own, producer: Producer, admin: Admin, topic: str, join: Join, fresh: str
) -> None:
    owner, place = await own(fresh), TopicPartition(topic, 0)
    await owner.begin()
    await owner.send(Outgoing(topic, b"aborted", partition=0))
    await owner.send_offsets(fresh, {place: Commit(1)})
    await producer.send(Outgoing(topic, b"beside it", partition=0))
    await owner.abort()
    await owner.begin()
    await owner.send(Outgoing(topic, b"committed", partition=0))
    await owner.commit()
    reader = await join(f"{fresh}-reader", topic)
    await reader.until(lambda: reader.count == 2)
    assert reader.values(place) == [b"beside it", b"committed"]
    assert (await admin.group_offsets(fresh)).get(place) is None
    ends = await reader.consumer.offsets([place], "latest")
    await reader.until(lambda: reader.next_offsets[place] == ends[place])


@pytest.mark.parametrize("writes", [True, False], ids=["with outputs", "offsets alone"])
async def test_offsets_of_a_topic_that_is_gone_are_refused_and_the_transaction_is_aborted(
    own: Own, admin: Admin, topic: str, join: Join, fresh: str, writes: bool
) -> None:
    owner, place = await own(fresh), TopicPartition(topic, 0)
    for _ in range(2):
        await owner.begin()
        if writes:
            await owner.send(Outgoing(topic, b"aborted", partition=0))
        with pytest.raises(TopicNotFound):
            await owner.send_offsets(fresh, {TopicPartition(f"{fresh}-gone", 0): Commit(1)})
        await owner.abort()
    await owner.begin()
    await owner.send(Outgoing(topic, b"committed", partition=0))
    await owner.send_offsets(fresh, {place: Commit(1)})
    await owner.commit()
    async with asyncio.timeout(30):
        while await admin.group_offsets(fresh) != {place: Commit(1)}:
            await asyncio.sleep(0.05)
    reader = await join(f"{fresh}-reader", topic)
    await reader.until(lambda: reader.count == 1)
    assert reader.values(place) == [b"committed"]
    ends = await reader.consumer.offsets([place], "latest")
    await reader.until(lambda: reader.next_offsets[place] == ends[place])


async def test_a_new_owner_aborts_and_fences_the_former_one(own: Own, topic: str, join: Join, fresh: str) -> None:
    former, place = await own(fresh), TopicPartition(topic, 0)
    await former.begin()
    await former.send(Outgoing(topic, b"former", partition=0))
    owner = await own(fresh)
    with pytest.raises(PartitionLost):
        await former.commit()
    with pytest.raises(PartitionLost):
        await former.begin()
    await owner.begin()
    await owner.send(Outgoing(topic, b"owner", partition=0))
    await owner.commit()
    reader = await join(f"{fresh}-reader", topic)
    await together(lambda: reader.count, reader)
    assert reader.values(place) == [b"owner"]


async def test_a_refused_record_does_not_end_the_transaction(own: Own, admin: Admin, join: Join, fresh: str) -> None:
    await admin.create_topic(fresh, config={"max.message.bytes": "2000"})
    owner = await own(fresh)
    await owner.begin()
    with pytest.raises(RecordTooLarge):
        await owner.send_many([Outgoing(fresh, b"small"), Outgoing(fresh, b"x" * 2_000_000)])
    await owner.abort()
    await owner.begin()
    await owner.send(Outgoing(fresh, b"again"))
    await owner.commit()
    reader = await join(f"{fresh}-reader", fresh)
    await reader.until(lambda: reader.count)
    assert reader.values() == [b"again"]


@pytest.mark.parametrize("transport", [KAFKA, KIP_848_ON_KAFKA], indirect=True)
async def test_an_offset_that_a_transaction_is_about_to_change_is_waited_for(
    own: Own, topic: str, join: Join, fresh: str
) -> None:
    owner, place = await own(fresh), TopicPartition(topic, 0)
    member = await join(fresh, topic)
    assert (await member.consumer.committed([place]))[place] is None
    await owner.begin()
    await owner.send_offsets(fresh, {place: Commit(3, "a map")})
    asked = asyncio.create_task(member.consumer.committed([place]))
    done, _ = await asyncio.wait([asked], timeout=0.5)
    assert not done
    await owner.commit()
    assert (await asked)[place] == Commit(3, "a map")
