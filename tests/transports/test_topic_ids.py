"""Topics that are deleted and made again: what consumers and admin clients say of them, and that nobody reads on in the new one."""

import asyncio

import pytest

from octopus.errors import TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Outgoing, Producer, Transport

from .conftest import Join
from .engines import CONSUMERS, TRANSPORTS, OtherEngine

consumers = pytest.mark.parametrize("transport", CONSUMERS, indirect=True)
transports = pytest.mark.parametrize("transport", TRANSPORTS, indirect=True)


async def recreate(admin: Admin, topic: str, partitions: int = 3) -> None:
    await admin.delete_topic(topic)
    assert await admin.create_topic(topic, partitions=partitions)


@consumers
async def test_a_topic_that_is_made_again_has_another_id(join: Join, admin: Admin, topic: str) -> None:
    member = await join(topic, topic)
    ids = await member.consumer.topic_ids([topic, f"{topic}-unknown"])
    assert ids == await admin.topic_ids([topic])
    assert [*ids] == [topic]
    assert ids[topic]
    assert await member.consumer.topic_ids([topic]) == ids
    await admin.delete_topic(topic)
    assert await member.consumer.topic_ids([topic]) == {}
    await admin.create_topic(topic)
    again = await member.consumer.topic_ids([topic])
    assert again == await admin.topic_ids([topic])
    assert again[topic] not in (None, ids[topic])


@consumers
async def test_asking_for_an_id_makes_no_topic(join: Join, admin: Admin, topic: str) -> None:
    member = await join(topic, topic)
    assert await member.consumer.topic_ids([f"{topic}-unknown"]) == {}
    assert f"{topic}-unknown" not in {each.name for each in await admin.topics()}


@transports
async def test_nothing_of_a_topic_that_was_made_again_is_read_at_a_position_in_the_old_one(
    join: Join, admin: Admin, producer: Producer, topic: str
) -> None:
    place = TopicPartition(topic, 1)
    await producer.send_many([Outgoing(topic, b"old", partition=1) for _ in range(5)])
    member = await join(topic, topic)
    await member.until(lambda: member.count == 5)
    await recreate(admin, topic)
    again = TransportProducer(producer)
    await again.until_sent([Outgoing(topic, b"new", partition=1) for _ in range(9)])
    if not await admin.topic_ids([topic]):
        pytest.skip("this broker has no topic ids")
    await member.until(lambda: place in member.unreadable)
    assert isinstance(member.unreadable[place].error, TopicNotFound)
    assert member.values() == [b"old"] * 5


@transports
async def test_who_seeks_in_the_new_topic_reads_it(
    join: Join, admin: Admin, producer: Producer, topic: str, transport: Transport
) -> None:
    place = TopicPartition(topic, 1)
    await producer.send_many([Outgoing(topic, b"old", partition=1) for _ in range(5)])
    member = await join(topic, topic)
    await member.until(lambda: member.count == 5)
    await recreate(admin, topic)
    await TransportProducer(producer).until_sent([Outgoing(topic, b"new", partition=1) for _ in range(9)])
    await asyncio.sleep(0)
    member.records.clear()
    while place not in member.mine:
        await member.turn()
    await member.consumer.seek({place: 0}, await member.consumer.topic_ids([topic]))
    await member.until(lambda: member.values().count(b"new") >= 9)
    assert {*member.values()} == {b"new"}
    assert not isinstance(transport, OtherEngine)


class TransportProducer:
    """Sends as soon as the client has heard of the new topic."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def until_sent(self, messages: list[Outgoing]) -> None:
        """Send each once."""
        async with asyncio.timeout(20):
            for message in messages:
                while True:
                    try:
                        await self._producer.send(message)
                        break
                    except TopicNotFound:
                        await asyncio.sleep(0.05)
