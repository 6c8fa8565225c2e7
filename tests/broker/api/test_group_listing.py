"""Groups by state and type, and offsets that are deleted, on either broker."""

import asyncio

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import Reader, Writer
from tests.broker.members_on_either import joined, left, synced
from tests.broker.requests_and_answers import OFFSET_COMMIT
from tests.broker.topics_on_either import find_coordinator, fresh, make_topic
from tests.broker.wire_client import WireClient

LIST_GROUPS, OFFSET_DELETE = 16, 47


async def committed(peer: WireClient, topic: str) -> str:
    """Return a group with an offset and without members."""
    group = fresh("group")
    await find_coordinator(peer, group)
    body = Writer().string(group).int32(-1).string("").int64(-1)
    body.int32(1).string(topic).int32(1).int32(0).int64(1).string(None)
    async with asyncio.timeout(15):
        while True:
            if code_of(await peer.ask(OFFSET_COMMIT, 2, body)) == Code.NONE:
                return group
            await asyncio.sleep(0.05)


def code_of(answer: Reader) -> int:
    """Return what an OffsetCommit 2 answers for its one partition."""
    ((_, ((_, code),)),) = answer.array(
        lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16())))
    )
    return code


async def listed(
    peer: WireClient, version: int, states: tuple[str, ...] = (), types: tuple[str, ...] = ()
) -> dict[str, tuple[str, ...]]:
    body = Writer(version >= 3)
    if version >= 4:
        body.array(states, body.string)
    if version >= 5:
        body.array(types, body.string)
    answer = await peer.ask(LIST_GROUPS, version, body.tags())
    if version >= 3:
        answer.become_flexible()
    answer.int32()
    assert answer.int16() == Code.NONE

    def group() -> tuple[str, tuple[str, ...]]:
        name, _kind = answer.string(), answer.string()
        return name, tuple(answer.string() for _ in range(max(0, version - 3)))

    return dict(answer.structs(group))


@pytest.mark.parametrize(
    ("version", "states", "types", "expected"),
    [
        (3, (), (), ()),
        (4, (), (), ("Empty",)),
        (4, ("Empty", "Stable"), (), ("Empty",)),
        (4, ("empty",), (), ("Empty",)),
        (4, ("Stable",), (), None),
        (5, (), (), ("Empty", "classic")),
        (5, ("Empty",), ("classic",), ("Empty", "classic")),
        (5, (), ("Classic",), ("Empty", "classic")),
        (5, (), ("consumer",), None),
    ],
)
async def test_groups_are_listed_by_state_and_type(
    peer: WireClient,
    version: int,
    states: tuple[str, ...],
    types: tuple[str, ...],
    expected: tuple[str, ...] | None,
) -> None:
    topic = fresh("t")
    await make_topic(peer, topic)
    group = await committed(peer, topic)
    assert (await listed(peer, version, states, types)).get(group) == expected


async def deleted(peer: WireClient, group: str, *topics: str) -> tuple[int, dict[str, int]]:
    body = Writer().string(group)
    body.array(topics, lambda name: body.string(name).array([0], body.int32))
    answer = await peer.ask(OFFSET_DELETE, 0, body)
    code = answer.int16()
    answer.int32()
    parts = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16()))))
    return code, {name: each for name, ((_, each),) in parts}


async def test_offsets_of_a_group_are_deleted_one_partition_at_a_time(peer: WireClient) -> None:
    topic = fresh("t")
    await make_topic(peer, topic)
    group = await committed(peer, topic)
    unknown = fresh("unknown")
    found = {topic: Code.NONE, unknown: Code.UNKNOWN_TOPIC_OR_PARTITION}
    assert await deleted(peer, group, topic, unknown) == (Code.NONE, found)


async def test_offsets_of_an_unknown_group_cannot_be_deleted(peer: WireClient) -> None:
    topic, group = fresh("t"), fresh("unknown")
    await make_topic(peer, topic)
    await find_coordinator(peer, group)
    assert await deleted(peer, group, topic) == (Code.GROUP_ID_NOT_FOUND, {})


async def test_offsets_of_topics_that_members_read_are_kept_and_others_are_deleted(
    peer: WireClient, other: WireClient
) -> None:
    read, unread = fresh("read"), fresh("unread")
    for topic in (read, unread):
        await make_topic(peer, topic)
    group = await committed(peer, read)
    member, generation = await joined(other, group, topics=(read,))
    await synced(other, group, member, generation)
    found = {read: Code.GROUP_SUBSCRIBED_TO_TOPIC, unread: Code.NONE}
    assert await deleted(peer, group, read, unread) == (Code.NONE, found)
    await left(other, group, member)
    assert await deleted(peer, group, read) == (Code.NONE, {read: Code.NONE})


async def test_offsets_of_a_group_that_is_none_of_consumers_are_kept_while_it_has_members(
    peer: WireClient, other: WireClient
) -> None:
    topic = fresh("t")
    await make_topic(peer, topic)
    group = await committed(peer, topic)
    member, generation = await joined(other, group, kind="connect")
    await synced(other, group, member, generation)
    assert await deleted(peer, group, topic) == (Code.NON_EMPTY_GROUP, {})
