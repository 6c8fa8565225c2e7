"""DescribeTopicPartitions on either broker."""

from uuid import UUID

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import NO_ID, Writer
from tests.broker.topics_on_either import ALL_OF_TOPIC, NOT_ASKED, fresh, make_topic
from tests.broker.wire_client import WireClient

DESCRIBE_TOPIC_PARTITIONS = 75
Cursor = tuple[str, int] | None
Topic = tuple[int, str, UUID, list[int], int]
"""Code, name, id, partitions, allowed operations."""


async def ask(peer: WireClient, *topics: str, limit: int = 2000, cursor: Cursor = None) -> tuple[list[Topic], Cursor]:
    body = Writer(True)
    body.structs(topics, body.string).int32(limit)
    if cursor is None:
        body.int8(-1)
    else:
        body.int8(1).string(cursor[0]).int32(cursor[1]).tags()
    answer = (await peer.ask(DESCRIBE_TOPIC_PARTITIONS, 0, body)).become_flexible()
    assert answer.int32() == 0

    def partition() -> int:
        code, index, _leader, epoch = answer.int16(), answer.int32(), answer.int32(), answer.int32()
        assert (code, epoch) == (Code.NONE, 0)
        assert [len(answer.array(answer.int32)) for _ in range(5)] == [1, 1, 0, 0, 0]
        return index

    def topic() -> Topic:
        code, name, topic_id, is_internal = answer.int16(), answer.string(), answer.uuid(), answer.boolean()
        assert not is_internal
        return code, name, topic_id, answer.structs(partition), answer.int32()

    found = answer.structs(topic)
    following = None
    if answer.int8() > 0:
        following = answer.string(), answer.int32()
        answer.tags()
    answer.tags()
    assert answer.remaining == 0
    return found, following


async def test_topics_come_in_the_order_of_their_names_a_page_at_a_time(peer: WireClient) -> None:
    stem = fresh("paged")
    a, b, c = (f"{stem}-{dead_letter}" for dead_letter in "abc")
    ids = {name: await make_topic(peer, name, 3) for name in (b, a)}

    def part(name: str, partitions: list[int]) -> Topic:
        return Code.NONE, name, ids[name], partitions, ALL_OF_TOPIC

    missing = (Code.UNKNOWN_TOPIC_OR_PARTITION, c, NO_ID, [], ALL_OF_TOPIC)
    assert await ask(peer, c, b, a, b) == ([part(a, [0, 1, 2]), part(b, [0, 1, 2]), missing], None)
    assert await ask(peer, a, b, c, limit=2) == ([part(a, [0, 1])], (a, 2))
    assert await ask(peer, a, b, c, limit=2, cursor=(a, 2)) == ([part(a, [2]), part(b, [0])], (b, 1))
    assert await ask(peer, a, b, c, limit=3) == ([part(a, [0, 1, 2])], (b, 0))
    assert await ask(peer, a, b, c, limit=0, cursor=(b, 2)) == ([part(b, [2])], (c, 0))
    assert await ask(peer, a, b, c, cursor=(c, 0)) == ([missing], None)


async def test_all_topics_are_described_from_the_cursor_on_whether_it_is_one_of_them_or_not(peer: WireClient) -> None:
    name = fresh("zz-listed")
    topic_id = await make_topic(peer, name)
    found, _ = await ask(peer, cursor=(name[:-1], 3))
    assert (Code.NONE, name, topic_id, [0], ALL_OF_TOPIC) in found


@pytest.mark.parametrize("cursor", [("another", 0), (None, -1)], ids=["of no topic asked for", "negative"])
async def test_a_cursor_that_points_nowhere_is_refused(peer: WireClient, cursor: tuple[str | None, int]) -> None:
    name = fresh("refused")
    await make_topic(peer, name)
    refused = (Code.INVALID_REQUEST, name, NO_ID, [], NOT_ASKED)
    assert await ask(peer, name, cursor=(cursor[0] or name, cursor[1])) == ([refused], None)


async def test_a_name_that_is_none_is_told_from_an_unknown_one(peer: WireClient) -> None:
    assert (await ask(peer, "a/b"))[0] == [(Code.INVALID_TOPIC_EXCEPTION, "a/b", NO_ID, [], ALL_OF_TOPIC)]
