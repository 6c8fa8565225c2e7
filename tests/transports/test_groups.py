"""What a group promises: who owns what, in which order members learn of it, and whose commits count."""

import asyncio
import re

import pytest

from octopus.errors import PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Commit, Outgoing, Producer, Transport

from .conftest import Join
from .engines import CONSUMERS, is_incremental
from .members import Member, together

pytestmark = pytest.mark.parametrize("transport", CONSUMERS, indirect=True)


async def test_a_single_member_gets_every_partition_and_no_revocation_first(join: Join, topic: str) -> None:
    member = await join(topic, topic)
    everything = frozenset(TopicPartition(topic, number) for number in range(3))
    assert member.changes == [("assigned", everything)]


async def test_partitions_move_when_a_member_joins_and_come_back_when_it_leaves(
    transport: Transport, join: Join, topic: str
) -> None:
    first = await join(topic, topic)
    second = await join(topic, topic, wait=False)
    await together(lambda: first.mine and second.mine, first, second)
    assert first.mine | second.mine == {TopicPartition(topic, number) for number in range(3)}
    assert not first.mine & second.mine
    if is_incremental(transport):
        assert first.changes[1:] == [("revoked", second.mine)], "what stays is not mentioned"
    else:
        assert [what for what, _ in first.changes[:3]] == ["assigned", "revoked", "assigned"]
        assert first.changes[1][1] == first.changes[0][1]
    await second.consumer.stop()
    assert [what for what, _ in second.changes][-1] == "assigned", "stopping calls no listener"
    await first.until(lambda: len(first.mine) == 3)


async def test_commits_are_accepted_while_partitions_are_revoked_and_the_next_owner_starts_there(
    join: Join, producer: Producer, topic: str
) -> None:
    await producer.send_many([Outgoing(topic, b"%d" % n, partition=p) for p in range(3) for n in range(10)])
    first = await join(topic, topic)
    await first.until(lambda: first.count == 30)

    async def commit() -> None:
        await first.consumer.commit({partition: Commit(7) for partition in first.mine})

    first.on_revoked = commit
    second = await join(topic, topic, wait=False)
    await together(lambda: first.mine and second.mine, first, second)
    await second.until(lambda: second.count == 3 * len(second.mine))
    for partition in second.mine:
        assert second.values(partition) == [b"7", b"8", b"9"]


async def test_a_commit_for_a_partition_that_moved_away_is_refused_and_the_rest_is_stored(
    join: Join, topic: str
) -> None:
    first = await join(topic, topic)
    second = await join(topic, topic, wait=False)
    await together(lambda: first.mine and second.mine, first, second)
    mine, foreign = next(iter(first.mine)), next(iter(second.mine))
    with pytest.raises(PartitionLost, match=re.escape(str(foreign))):
        await first.consumer.commit({mine: Commit(3), foreign: Commit(4)})
    assert await first.consumer.committed({mine, foreign}) == {mine: Commit(3), foreign: None}


async def test_nothing_is_read_of_partitions_that_were_not_positioned_yet(join: Join, topic: str) -> None:
    first = await join(topic, topic)
    second = await join(topic, topic, wait=False)
    everything = {TopicPartition(topic, number) for number in range(3)}
    await together(lambda: first.mine and second.mine, first, second)
    assert await first.turn(only=everything - first.mine, timeout=0.1) == []


async def test_an_exception_in_the_listener_surfaces_from_fetch(transport: Transport, topic: str) -> None:
    member = Member(transport, topic, [topic])
    member.fail_on_assigned = LookupError("no room")
    await member.consumer.start(member)
    with pytest.raises(LookupError, match="no room"):
        await member.until(lambda: False)
    await member.consumer.stop()


async def test_a_listener_that_sets_no_position_is_an_error(transport: Transport, topic: str) -> None:
    class Idle(Member):
        async def assigned(self, partitions: object) -> None:
            pass

    member = Idle(transport, topic, [topic])
    await member.consumer.start(member)
    with pytest.raises(TransportError, match="no position"):
        await member.until(lambda: False)
    await member.consumer.stop()


async def test_a_pattern_finds_topics_that_appear_later(
    join: Join, admin: Admin, producer: Producer, topic: str
) -> None:
    member = await join(topic, re.compile(rf"{topic}.*"))
    later = f"{topic}-later"
    await admin.create_topic(later)
    await producer.send(Outgoing(later, b"hello"))
    await member.until(lambda: TopicPartition(later, 0) in member.mine)
    await member.until(lambda: member.values(TopicPartition(later, 0)) == [b"hello"])
    assert TopicPartition(topic, 0) in member.mine


async def test_new_partitions_are_assigned(join: Join, admin: Admin, topic: str) -> None:
    member = await join(topic, topic)
    await admin.alter_topic(topic, partitions=5)
    await member.until(lambda: len(member.mine) == 5)


async def test_two_groups_read_the_same_topic_independently(join: Join, producer: Producer, topic: str) -> None:
    await producer.send(Outgoing(topic, b"x"))
    members = await asyncio.gather(join(f"{topic}-a", topic), join(f"{topic}-b", topic))
    await together(lambda: all(member.values() == [b"x"] for member in members), *members)
