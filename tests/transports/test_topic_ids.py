"""Topics that are deleted and made again: what consumers and admin clients say of them, and that nobody reads on in the new one."""

import asyncio
from types import SimpleNamespace
from typing import Any

import aiokafka.errors as kafka
import pytest

from octopus.errors import TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Outgoing, Producer
from octopus.transports.kafka.topic_ids import TopicIds, id_text

from .conftest import Join
from .engines import CONSUMERS, TRANSPORTS

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
    await PatientProducer(producer).until_sent([Outgoing(topic, b"new", partition=1) for _ in range(9)])
    await member.until(lambda: place in member.unreadable or member.values().count(b"new") == 9)
    if place in member.unreadable:
        assert isinstance(member.unreadable[place].error, TopicNotFound)
        assert member.values() == [b"old"] * 5
    else:  # it had heard of the deletion, gave the partitions up, and was given those of the new topic
        assert [what for what, _ in member.changes] == ["assigned", "revoked", "assigned"]
        assert member.values() == [b"old"] * 5 + [b"new"] * 9


@transports
async def test_who_seeks_in_the_new_topic_reads_it(join: Join, admin: Admin, producer: Producer, topic: str) -> None:
    place = TopicPartition(topic, 1)
    await producer.send_many([Outgoing(topic, b"old", partition=1) for _ in range(5)])
    member = await join(topic, topic)
    await member.until(lambda: member.count == 5)
    await recreate(admin, topic)
    await PatientProducer(producer).until_sent([Outgoing(topic, b"new", partition=1) for _ in range(9)])
    member.records.clear()
    while place not in member.mine:
        await member.turn()
    await member.consumer.seek({place: 0}, await member.consumer.topic_ids([topic]))
    await member.until(lambda: member.values().count(b"new") >= 9)
    assert {*member.values()} == {b"new"}


class Cluster:
    """A client of brokers that say what the test says, one after the other.

    Args:
        answers: What each broker says the topic's id is, each time it is asked; the last for ever. Empty: it is not there.
    """

    def __init__(self, *answers: list[str]) -> None:
        self.cluster = self
        self.asked = 0
        self._answers = answers

    def brokers(self) -> list[Any]:
        return [SimpleNamespace(nodeId=number) for number in range(len(self._answers))]

    async def send(self, node: int, _request: Any, **_options: Any) -> Any:
        self.asked += 1
        said = self._answers[node].pop(0) if len(self._answers[node]) > 1 else self._answers[node][0]
        if said == "away":
            raise kafka.NodeNotReadyError(str(node))
        return SimpleNamespace(topics={"t": (0, said.encode() * 16) if said else (3, bytes(16))})


async def test_brokers_that_do_not_agree_are_asked_until_they_do() -> None:
    client = Cluster(["o", "o", "n"], ["n"])
    for _ in range(5):
        assert await TopicIds(client).ask(["t"], 5) == {"t": id_text(b"n" * 16)}


async def test_one_broker_is_enough_for_what_is_known_already() -> None:
    client = Cluster(["o"], ["o"], ["o"])
    ids = TopicIds(client)
    await ids.ask(["t"], 5)
    before = client.asked
    await ids.ask(["t"], 5)
    assert client.asked == before + 1


async def test_a_broker_that_is_away_is_not_asked_twice_and_hinders_nobody() -> None:
    client = Cluster(["away"], ["o"])
    assert await TopicIds(client).ask(["t"], 5) == {"t": id_text(b"o" * 16)}
    with pytest.raises(kafka.NodeNotReadyError):
        await TopicIds(Cluster(["away"], ["away"])).ask(["t"], 5)


async def test_brokers_that_never_agree_are_an_error_that_passes() -> None:
    with pytest.raises(kafka.KafkaTimeoutError, match="did not agree on the ids of t"):
        await TopicIds(Cluster(["o"], ["n"])).ask(["t"], 0.2)


class PatientProducer:
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
