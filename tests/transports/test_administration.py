"""What an admin client promises."""

import pytest

from octopus.errors import TopicNotFound, TransportError
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Commit, Outgoing, Producer

from .conftest import Join


async def test_topics_are_created_once_listed_and_deleted(admin: Admin, fresh: str) -> None:
    assert await admin.create_topic(fresh, partitions=2) is True
    assert await admin.create_topic(fresh, partitions=2) is False
    (found,) = [topic for topic in await admin.topics() if topic.name == fresh]
    assert (found.partitions, found.replication, found.internal) == (2, 1, False)
    await admin.delete_topic(fresh)
    assert fresh not in {topic.name for topic in await admin.topics()}
    with pytest.raises(TopicNotFound, match=fresh):
        await admin.delete_topic(fresh)


async def test_changing_one_setting_keeps_the_others(admin: Admin, fresh: str) -> None:
    await admin.create_topic(fresh, config={"max.message.bytes": "200000"})
    await admin.alter_topic(fresh, config={"retention.ms": "3600000"})
    config = await admin.topic_config(fresh)
    assert (config["max.message.bytes"], config["retention.ms"]) == ("200000", "3600000")
    with pytest.raises(TopicNotFound):
        await admin.topic_config(f"{fresh}-unknown")


async def test_partitions_can_only_become_more(admin: Admin, topic: str) -> None:
    await admin.alter_topic(topic, partitions=4)
    assert {entry.name: entry.partitions for entry in await admin.topics()}[topic] == 4
    with pytest.raises(TransportError):
        await admin.alter_topic(topic, partitions=2)


async def test_offsets_of_any_partition_can_be_asked(admin: Admin, producer: Producer, topic: str) -> None:
    await producer.send_many([Outgoing(topic, b"x", partition=1, timestamp=1000 * n) for n in range(1, 4)])
    places = [TopicPartition(topic, number) for number in range(3)]
    assert list((await admin.offsets(places, "latest")).values()).count(0) == 2
    assert (await admin.offsets(places[1:2], "earliest"))[places[1]] == 0
    assert (await admin.offsets(places[1:2], "latest"))[places[1]] == 3
    assert (await admin.offsets(places[1:2], 2.0))[places[1]] == 1
    with pytest.raises(TopicNotFound):
        await admin.offsets([TopicPartition(f"{topic}-unknown", 0)], "latest")


async def test_a_group_is_described_with_its_members_and_offsets(admin: Admin, join: Join, topic: str) -> None:
    member = await join(topic, topic)
    await member.consumer.commit({TopicPartition(topic, 1): Commit(5, "note")})
    (group,) = [group for group in await admin.groups() if group.name == topic]
    assert group.state == "Stable"
    assert [set(each.partitions) for each in group.members] == [member.mine]
    assert await admin.group_offsets(topic) == {TopicPartition(topic, 1): Commit(5, "note")}
    assert await admin.group_offsets(f"{topic}-unknown") == {}


async def test_offsets_of_a_group_with_members_are_not_touched(admin: Admin, join: Join, topic: str) -> None:
    member = await join(topic, topic)
    with pytest.raises(TransportError, match="has members: 1"):
        await admin.set_group_offsets(topic, {TopicPartition(topic, 0): Commit(1)})
    with pytest.raises(TransportError, match="has members: 1"):
        await admin.delete_group(topic)
    await member.consumer.stop()
    await admin.set_group_offsets(topic, {TopicPartition(topic, 0): Commit(9, "moved")})
    assert await admin.group_offsets(topic) == {TopicPartition(topic, 0): Commit(9, "moved")}
    await admin.delete_group(topic)
    assert await admin.group_offsets(topic) == {}
    await admin.delete_group(topic)
