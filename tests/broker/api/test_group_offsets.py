"""Committed offsets in the newer versions: by topic id, of several groups at once, stable; on either broker."""

import asyncio
from uuid import UUID

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import Reader, Writer
from tests.broker.api.test_deleted_topics import (
    Producer,
    add_group,
    commit_in,
    end,
    make_group,
    make_producer,
    settled,
)
from tests.broker.requests_and_answers import OFFSET_COMMIT, OFFSET_FETCH
from tests.broker.topics_on_either import NOBODY, delete_topic, find_coordinator, fresh, make_topic
from tests.broker.wire_client import WireClient

TXN_OFFSET_COMMIT = 28
Key = UUID | str
Found = tuple[int, int, str, int]
"""Offset, leader epoch, metadata, code."""


def write_key(body: Writer, key: Key) -> Writer:
    return body.uuid(key) if isinstance(key, UUID) else body.string(key)


def write_offsets(body: Writer, topics: list[Key], offset: int) -> Writer:
    def part(number: int) -> None:
        body.int32(number).int64(offset).int32(4).string("note")

    return body.structs(topics, lambda key: write_key(body, key).structs([0], part))


def codes(answer: Reader, version: int) -> list[tuple[Key, int]]:
    answer.become_flexible().int32()

    def topic() -> tuple[Key, int]:
        key = answer.uuid() if version >= 10 else answer.string()
        ((number, code),) = answer.structs(lambda: (answer.int32(), answer.int16()))
        assert number == 0
        return key, code

    found = answer.structs(topic)
    answer.tags()
    assert answer.remaining == 0
    return found


async def commit(
    peer: WireClient, version: int, group: str, topics: list[Key], offset: int = 5, generation: int = -1
) -> list[tuple[Key, int]]:
    body = Writer(True).string(group).int32(generation).string("").string(None)
    return codes(await peer.ask(OFFSET_COMMIT, version, write_offsets(body, topics, offset)), version)


async def offsets(
    peer: WireClient, version: int, groups: dict[str, list[tuple[Key, list[int]]] | None], *, is_stable: bool = False
) -> dict[str, tuple[int, dict[Key, dict[int, Found]]]]:
    """Return for each group its code, and what was answered for each topic and partition."""
    body = Writer(True)

    def topic(entry: tuple[Key, list[int]]) -> None:
        write_key(body, entry[0]).array(entry[1], body.int32)

    def group(entry: tuple[str, list[tuple[Key, list[int]]] | None]) -> None:
        body.string(entry[0])
        if version >= 9:
            body.string(None).int32(-1)
        body.structs(entry[1], topic)

    if version >= 8:
        body.structs(list(groups.items()), group)
    else:
        group(next(iter(groups.items())))
    answer = await peer.ask(OFFSET_FETCH, version, body.boolean(is_stable) if version >= 7 else body)
    answer.become_flexible().int32()

    def place() -> tuple[int, Found]:
        number, offset, epoch = answer.int32(), answer.int64(), answer.int32()
        return number, (offset, epoch, answer.nullable_string() or "", answer.int16())

    def found_topic() -> tuple[Key, dict[int, Found]]:
        key = answer.uuid() if version >= 10 else answer.string()
        return key, dict(answer.structs(place))

    def found_group() -> tuple[str, tuple[int, dict[Key, dict[int, Found]]]]:
        name = answer.string() if version >= 8 else next(iter(groups))
        topics = dict(answer.structs(found_topic))
        return name, (answer.int16(), topics)

    found = dict(answer.structs(found_group)) if version >= 8 else dict([found_group()])
    answer.tags()
    assert answer.remaining == 0
    return found


NOTHING = (-1, -1, "", Code.NONE)
FIVE = (5, 4, "note", Code.NONE)


async def committed_group(peer: WireClient, version: int, topics: list[Key]) -> str:
    group = fresh("group")
    await find_coordinator(peer, group)
    for topic in topics:

        async def action(topic: Key = topic) -> int:
            return (await commit(peer, version, group, [topic]))[0][1]

        assert await settled(action) == Code.NONE
    return group


@pytest.mark.parametrize("version", [8, 9, 10])
async def test_offsets_are_committed_and_fetched_by_the_topics_name_and_from_version_10_on_by_its_id(
    peer: WireClient, version: int
) -> None:
    name = fresh("committed")
    topic_id = await make_topic(peer, name)
    topic: Key = topic_id if version >= 10 else name
    group = await committed_group(peer, version, [topic])
    for each in (6, 7, 8, 9, 10):
        key: Key = topic_id if each >= 10 else name
        expected = {group: (Code.NONE, {key: {0: FIVE, 1: NOTHING}})}
        assert await offsets(peer, each, {group: [(key, [0, 1])]}) == expected
        assert await offsets(peer, each, {group: None}) == {group: (Code.NONE, {key: {0: FIVE}})}


async def test_an_unknown_topic_id_is_answered_for_each_partition(peer: WireClient) -> None:
    name = fresh("known")
    topic_id = await make_topic(peer, name)
    group = await committed_group(peer, 10, [topic_id])
    assert await commit(peer, 10, group, [NOBODY, topic_id]) == [(NOBODY, Code.UNKNOWN_TOPIC_ID), (topic_id, Code.NONE)]
    found = await offsets(peer, 10, {group: [(NOBODY, [0, 3]), (topic_id, [0])]})
    unknown = (-1, -1, "", Code.UNKNOWN_TOPIC_ID)
    assert found == {group: (Code.NONE, {NOBODY: {0: unknown, 3: unknown}, topic_id: {0: FIVE}})}


async def test_an_old_topic_id_neither_commits_to_nor_finds_the_topic_that_was_made_again(peer: WireClient) -> None:
    name = fresh("again")
    old = await make_topic(peer, name)
    group = await committed_group(peer, 10, [old])
    await delete_topic(peer, name)
    new = await make_topic(peer, name)
    assert await commit(peer, 10, group, [old]) == [(old, Code.UNKNOWN_TOPIC_ID)]
    found = await offsets(peer, 10, {group: [(old, [0]), (new, [0])]})
    assert found[group][1] == {old: {0: (-1, -1, "", Code.UNKNOWN_TOPIC_ID)}, new: {0: NOTHING}}


@pytest.mark.parametrize("version", [8, 9, 10])
async def test_several_groups_are_answered_at_once(peer: WireClient, version: int) -> None:
    name = fresh("shared")
    topic_id = await make_topic(peer, name)
    key: Key = topic_id if version >= 10 else name
    first, second = [await committed_group(peer, 8, [name]) for _ in range(2)]
    found = await offsets(peer, version, {first: None, second: [(key, [0])], fresh("nobody"): [(key, [0])]})
    assert [topics for _, topics in found.values()] == [{key: {0: FIVE}}, {key: {0: FIVE}}, {key: {0: NOTHING}}]


@pytest.mark.parametrize(("version", "code"), [(8, Code.ILLEGAL_GENERATION), (9, Code.GROUP_ID_NOT_FOUND)])
async def test_a_member_of_no_group_commits_nothing(peer: WireClient, version: int, code: Code) -> None:
    name = fresh("lonely")
    await make_topic(peer, name)
    await committed_group(peer, 8, [name])  # so that coordinators are awake
    group = fresh("group")
    await find_coordinator(peer, group)

    async def action() -> int:
        return (await commit(peer, version, group, [name], generation=3))[0][1]

    assert await settled(action) == code


@pytest.mark.parametrize("version", [7, 8, 9, 10])
async def test_an_offset_that_a_transaction_may_change_is_not_stable(peer: WireClient, version: int) -> None:
    name = fresh("stable")
    topic_id = await make_topic(peer, name)
    key: Key = topic_id if version >= 10 else name
    group = await make_group(peer, name, 5)
    producer = await make_producer(peer)
    assert await settled(lambda: add_group(peer, producer, group)) == Code.NONE
    asked: dict[str, list[tuple[Key, list[int]]] | None] = {group: [(key, [0])]}
    (before,) = (await offsets(peer, version, asked, is_stable=True))[group][1].values()
    assert before[0][::3] == (5, Code.NONE)
    assert await settled(lambda: commit_in(peer, producer, group, name, 9)) == Code.NONE
    (during,) = (await offsets(peer, version, asked, is_stable=True))[group][1].values()
    assert during[0] == (-1, -1, "", Code.UNSTABLE_OFFSET_COMMIT)
    (unstable,) = (await offsets(peer, version, asked))[group][1].values()
    assert unstable[0][::3] == (5, Code.NONE)
    assert await end(peer, producer, commit=True) == Code.NONE
    async with asyncio.timeout(15):
        while (await offsets(peer, version, asked, is_stable=True))[group][1][key][0][::3] != (9, Code.NONE):
            await asyncio.sleep(0.05)


async def commit_as(
    peer: WireClient, version: int, producer: Producer, group: str, topic: str, generation: int, member: str
) -> int:
    body = Writer(version >= 3).string(producer[0]).string(group).int64(producer[1]).int16(producer[2])
    body.int32(generation).string(member).string(None)
    ((_, code),) = codes(await peer.ask(TXN_OFFSET_COMMIT, version, write_offsets(body, [topic], 9)), 0)
    return code


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    ("generation", "member", "code"),
    [(-1, "", Code.NONE), (4, "", Code.ILLEGAL_GENERATION), (4, "somebody", Code.ILLEGAL_GENERATION)],
    ids=["outsider", "generation", "member"],
)
async def test_a_transaction_commits_for_a_group_without_members_only_for_outsiders(
    peer: WireClient, version: int, generation: int, member: str, code: Code
) -> None:
    name, group = fresh("fenced"), fresh("group")
    await make_topic(peer, name)
    producer = await make_producer(peer)
    await find_coordinator(peer, group)
    assert await settled(lambda: add_group(peer, producer, group)) == Code.NONE
    assert await settled(lambda: commit_as(peer, version, producer, group, name, generation, member)) == code
