"""Topics have ids, and every topic its own: what the embedded broker answers about them, and Apache Kafka."""

import uuid
from dataclasses import dataclass

import pytest
from requests_and_answers import CREATE_TOPICS, DELETE_TOPICS, METADATA, create_topic
from wire_client import WireClient

from octopus.broker.codes import Code
from octopus.broker.wire import NO_ID, Reader, Writer

NOBODY = uuid.UUID("01234567-89ab-4def-8123-456789abcdef")
ALL_OF_TOPIC, ALL_OF_CLUSTER, NOT_ASKED = 0xDF8, 0x1FA0, -(2**31)


def fresh(stem: str) -> str:
    return f"{stem}-{uuid.uuid4().hex[:10]}"


@dataclass(frozen=True)
class Described:
    code: int
    name: str | None
    id: uuid.UUID
    partitions: list[tuple[int, int]]
    operations: int


def metadata(
    version: int, *topics: str | uuid.UUID | tuple[uuid.UUID, str | None], asks: tuple[bool, bool] = (False, False)
) -> Writer:
    body = Writer(version >= 9)

    def topic(wanted: str | uuid.UUID | tuple[uuid.UUID, str | None]) -> None:
        match wanted:
            case str():
                topic_id, name = NO_ID, wanted
            case uuid.UUID():
                topic_id, name = wanted, None
            case _:
                topic_id, name = wanted
        if version >= 10:
            body.uuid(topic_id)
        body.string(name)

    body.structs(topics, topic).boolean(False)
    if 8 <= version <= 10:
        body.boolean(asks[0])
    return body.boolean(asks[1]) if version >= 8 else body


def described(answer: Reader, version: int) -> tuple[list[Described], int | None]:
    """Return what a Metadata answer (4 to 12) says of topics, and the operations allowed on the cluster."""
    if version >= 9:
        answer.become_flexible()
    answer.int32()
    answer.structs(lambda: (answer.int32(), answer.string(), answer.int32(), answer.nullable_string()))
    answer.nullable_string(), answer.int32()

    def partition() -> tuple[int, int]:
        assert answer.int16() == Code.NONE
        index, _leader, epoch = answer.int32(), answer.int32(), answer.int32() if version >= 7 else -1
        for _ in range(3 if version >= 5 else 2):
            answer.array(answer.int32)
        return index, epoch

    def topic() -> Described:
        code, name = answer.int16(), answer.nullable_string()
        topic_id = answer.uuid() if version >= 10 else NO_ID
        answer.boolean()
        partitions = sorted(answer.structs(partition))
        return Described(code, name, topic_id, partitions, answer.int32() if version >= 8 else NOT_ASKED)

    topics = answer.structs(topic)
    operations = answer.int32() if 8 <= version <= 10 else None
    if version >= 9:
        answer.tags()
    assert answer.remaining == 0
    return topics, operations


async def ask_metadata(peer: WireClient, version: int, *topics: object, **options: object) -> list[Described]:
    answer = await peer.ask(METADATA, version, metadata(version, *topics, **options))  # type: ignore[arg-type]
    return described(answer, version)[0]


async def make_topic(peer: WireClient, name: str, partitions: int = 1) -> uuid.UUID:
    """Create a topic and wait until its partitions have leaders; return its id."""
    await peer.ask(CREATE_TOPICS, 2, create_topic(name, partitions))
    while True:
        (topic,) = await ask_metadata(peer, 12, name)
        if topic.code == Code.NONE:
            return topic.id


async def delete_topic(peer: WireClient, name: str) -> None:
    await peer.ask(DELETE_TOPICS, 1, Writer().int32(1).string(name).int32(5000))
    while (await ask_metadata(peer, 12, name))[0].code != Code.UNKNOWN_TOPIC_OR_PARTITION:
        pass


async def test_a_topic_is_found_by_its_name_and_by_its_id(peer: WireClient) -> None:
    name = fresh("found")
    topic_id = await make_topic(peer, name, 2)
    expected = Described(Code.NONE, name, topic_id, [(0, 0), (1, 0)], NOT_ASKED)
    assert topic_id != NO_ID
    for wanted in (name, topic_id, (topic_id, name)):
        assert await ask_metadata(peer, 12, wanted) == [expected]
    for version in (10, 11):
        assert await ask_metadata(peer, version, name) == [expected]
    for version in (4, 8, 9):
        (without,) = await ask_metadata(peer, version, name)
        assert (without.code, without.name, without.id) == (Code.NONE, name, NO_ID)


async def test_a_topic_that_is_made_again_has_another_id(peer: WireClient) -> None:
    name = fresh("again")
    first = await make_topic(peer, name, 3)
    await delete_topic(peer, name)
    assert await ask_metadata(peer, 12, first) == [Described(Code.UNKNOWN_TOPIC_ID, None, first, [], NOT_ASKED)]
    assert await make_topic(peer, name, 1) != first
    assert await ask_metadata(peer, 12, first) == [Described(Code.UNKNOWN_TOPIC_ID, None, first, [], NOT_ASKED)]
    assert (await ask_metadata(peer, 12, name))[0].partitions == [(0, 0)]


async def test_an_unknown_topic_is_answered_with_what_it_was_asked_by(peer: WireClient) -> None:
    name = fresh("unknown")
    unknown = Described(Code.UNKNOWN_TOPIC_OR_PARTITION, name, NO_ID, [], NOT_ASKED)
    assert await ask_metadata(peer, 12, name) == [unknown]
    assert await ask_metadata(peer, 12, NOBODY) == [Described(Code.UNKNOWN_TOPIC_ID, None, NOBODY, [], NOT_ASKED)]


async def test_names_are_passed_over_where_any_topic_is_asked_for_by_its_id(peer: WireClient) -> None:
    name = fresh("passed-over")
    await make_topic(peer, name)
    topics = await ask_metadata(peer, 12, name, NOBODY)
    assert [(topic.code, topic.id) for topic in topics] == [(Code.UNKNOWN_TOPIC_ID, NOBODY)]


@pytest.mark.parametrize("version", [10, 11])
@pytest.mark.parametrize("wanted", [NOBODY, (NOBODY, "named"), (NO_ID, None)], ids=["id", "id and name", "nothing"])
async def test_ids_in_a_request_before_version_12_are_refused(peer: WireClient, version: int, wanted: object) -> None:
    answer = await ask_metadata(peer, version, wanted)
    name = wanted[1] if isinstance(wanted, tuple) else None
    topic_id = wanted[0] if isinstance(wanted, tuple) else wanted
    assert answer == [Described(Code.INVALID_REQUEST, name or "", topic_id, [], NOT_ASKED)]


@pytest.mark.parametrize("version", [8, 9, 10, 11, 12])
async def test_allowed_operations_are_told_to_who_asks_where_the_version_has_them(
    peer: WireClient, version: int
) -> None:
    name = fresh("allowed")
    await make_topic(peer, name)
    for cluster, topics in ((False, False), (True, True)):
        body = metadata(version, name, asks=(cluster, topics))
        (topic,), operations = described(await peer.ask(METADATA, version, body), version)
        assert topic.operations == (ALL_OF_TOPIC if topics else NOT_ASKED)
        assert operations == ((ALL_OF_CLUSTER if cluster else NOT_ASKED) if version <= 10 else None)


async def test_all_topics_come_with_their_ids(peer: WireClient) -> None:
    name = fresh("listed")
    topic_id = await make_topic(peer, name)
    answer = await peer.ask(METADATA, 12, Writer(True).structs(None, id).boolean(False).boolean(False))
    topics, _ = described(answer, 12)
    assert [topic.id for topic in topics if topic.name == name] == [topic_id]
    assert all(topic.id != NO_ID for topic in topics)
