"""Topics have ids, and every topic its own: what the embedded broker answers about them, and Apache Kafka."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import NO_ID, Reader, Writer
from tests.broker.requests_and_answers import CREATE_TOPICS, DELETE_TOPICS, FETCH, METADATA, PRODUCE, batch, produce
from tests.broker.topics_on_either import (
    ALL_OF_CLUSTER,
    ALL_OF_TOPIC,
    NOBODY,
    NOT_ASKED,
    Described,
    ask_metadata,
    delete_topic,
    described,
    fetch_from,
    fresh,
    make_topic,
    metadata,
    read,
)
from tests.broker.wire_client import WireClient


async def test_a_topic_is_found_by_its_name_and_by_its_id(peer: WireClient) -> None:
    name = fresh("found")
    topic_id = await make_topic(peer, name, 2)
    expected = Described(Code.NONE, name, topic_id, [(0, 0), (1, 0)], NOT_ASKED)
    assert topic_id != NO_ID
    for version in (12, 13):
        for wanted in (name, topic_id, (topic_id, name)):
            assert await ask_metadata(peer, version, wanted) == [expected]
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


@pytest.mark.parametrize("version", [8, 9, 10, 11, 12, 13])
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


def create(version: int, name: str, partitions: int = 2, *, validate_only: bool = False) -> Writer:
    body = Writer(version >= 5)
    config = [("retention.ms", "12345")]

    def topic(each: str) -> None:
        body.string(each).int32(partitions).int16(1).structs([], id)
        body.structs(config, lambda entry: body.string(entry[0]).string(entry[1]))

    return body.structs([name], topic).int32(5000).boolean(validate_only)


@dataclass(frozen=True)
class Created:
    code: int
    id: UUID
    partitions: int
    replicas: int
    config: dict[str, str | None]


def created(answer: Reader, version: int, name: str) -> Created:
    answer.become_flexible().int32()

    def topic() -> Created:
        assert answer.string() == name
        topic_id = answer.uuid() if version >= 7 else NO_ID
        code, _message = answer.int16(), answer.nullable_string()
        partitions, replicas = answer.int32(), answer.int16()

        def entry() -> tuple[str, str | None]:
            key, value = answer.string(), answer.nullable_string()
            answer.boolean(), answer.int8(), answer.boolean()
            return key, value

        return Created(code, topic_id, partitions, replicas, dict(answer.nullable_structs(entry) or []))

    (found,) = answer.structs(topic)
    answer.tags()
    assert answer.remaining == 0
    return found


@pytest.mark.parametrize("version", [5, 6, 7])
async def test_creating_a_topic_answers_with_what_was_created(peer: WireClient, version: int) -> None:
    name = fresh("created")
    found = created(await peer.ask(CREATE_TOPICS, version, create(version, name)), version, name)
    assert (found.code, found.partitions, found.replicas) == (Code.NONE, 2, 1)
    assert found.config["retention.ms"] == "12345"
    assert found.config["cleanup.policy"] == "delete"
    async with asyncio.timeout(15):
        while (topic := (await ask_metadata(peer, 12, name))[0]).code != Code.NONE:
            await asyncio.sleep(0.02)
    assert found.id == (topic.id if version >= 7 else NO_ID)
    again = created(await peer.ask(CREATE_TOPICS, version, create(version, name)), version, name)
    assert again == Created(Code.TOPIC_ALREADY_EXISTS, NO_ID, -1, -1, {})


async def test_a_creation_that_is_only_checked_answers_with_the_configuration(peer: WireClient) -> None:
    name = fresh("checked")
    found = created(await peer.ask(CREATE_TOPICS, 7, create(7, name, validate_only=True)), 7, name)
    assert (found.code, found.partitions, found.replicas) == (Code.NONE, 2, 1)
    assert found.config["retention.ms"] == "12345"
    assert (await ask_metadata(peer, 12, name))[0].code == Code.UNKNOWN_TOPIC_OR_PARTITION


def delete(*topics: tuple[str | None, UUID]) -> Writer:
    body = Writer(True)
    return body.structs(topics, lambda topic: body.string(topic[0]).uuid(topic[1])).int32(5000)


def deleted(answer: Reader) -> list[tuple[str | None, UUID, int]]:
    answer.become_flexible().int32()

    def topic() -> tuple[str | None, UUID, int]:
        name, topic_id, code = answer.nullable_string(), answer.uuid(), answer.int16()
        assert (answer.nullable_string() is None) == (code == Code.NONE)
        return name, topic_id, code

    return answer.structs(topic)


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_topic_is_deleted_by_its_name_or_its_id_and_answered_with_both(peer: WireClient, by: str) -> None:
    name = fresh("deleted")
    topic_id = await make_topic(peer, name)
    wanted = (name, NO_ID) if by == "name" else (None, topic_id)
    assert deleted(await peer.ask(DELETE_TOPICS, 6, delete(wanted))) == [(name, topic_id, Code.NONE)]
    unknown = Code.UNKNOWN_TOPIC_OR_PARTITION if by == "name" else Code.UNKNOWN_TOPIC_ID
    assert deleted(await peer.ask(DELETE_TOPICS, 6, delete(wanted))) == [(*wanted, unknown)]


async def test_a_topic_to_delete_has_a_name_or_an_id_and_not_both(peer: WireClient) -> None:
    name = fresh("spared")
    topic_id = await make_topic(peer, name)
    for wanted in ((name, topic_id), (None, NO_ID)):
        assert deleted(await peer.ask(DELETE_TOPICS, 6, delete(wanted))) == [(*wanted, Code.INVALID_REQUEST)]
    assert (await ask_metadata(peer, 12, name))[0].id == topic_id


def produce_to(topic: UUID | str, version: int, records: bytes, partition: int = 0) -> Writer:
    body = Writer(True).string(None).int16(-1).int32(5000)

    def write(each: UUID | str) -> None:
        named(body, each).structs([partition], lambda number: body.int32(number).blob(records))

    return body.structs([topic], write)


def named(body: Writer, topic: UUID | str) -> Writer:
    return body.uuid(topic) if isinstance(topic, UUID) else body.string(topic)


def written(answer: Reader, topic: UUID | str) -> tuple[int, int]:
    answer.become_flexible()

    def part() -> tuple[int, int]:
        answer.int32()
        code, base, _time, _start = answer.int16(), answer.int64(), answer.int64(), answer.int64()
        answer.structs(lambda: (answer.int32(), answer.nullable_string())), answer.nullable_string()
        return code, base

    def one() -> list[tuple[int, int]]:
        assert (answer.uuid() if isinstance(topic, UUID) else answer.string()) == topic
        return answer.structs(part)

    ((found,),) = answer.structs(one)
    assert answer.int32() == 0, "not throttled"
    answer.tags()
    assert answer.remaining == 0
    return found


@pytest.mark.parametrize("version", [9, 10, 11, 12, 13])
async def test_records_are_written_by_the_topics_name_and_from_version_13_on_by_its_id(
    peer: WireClient, version: int
) -> None:
    name = fresh("written")
    topic_id = await make_topic(peer, name)
    topic = topic_id if version >= 13 else name
    for offset in range(2):
        answer = await peer.ask(PRODUCE, version, produce_to(topic, version, batch(b"x")))
        assert written(answer, topic) == (Code.NONE, offset)
    answer = await peer.ask(PRODUCE, version, produce_to(topic, version, batch(b"x"), partition=1))
    assert written(answer, topic) == (Code.UNKNOWN_TOPIC_OR_PARTITION, -1)


async def test_writing_to_a_topic_that_was_made_again_is_refused_by_the_old_id(peer: WireClient) -> None:
    name = fresh("rewritten")
    old = await make_topic(peer, name)
    await delete_topic(peer, name)
    new = await make_topic(peer, name)
    for topic, expected in ((old, (Code.UNKNOWN_TOPIC_ID, -1)), (NOBODY, (Code.UNKNOWN_TOPIC_ID, -1)), (new, (0, 0))):
        assert written(await peer.ask(PRODUCE, 13, produce_to(topic, 13, batch(b"x"))), topic) == expected


@pytest.mark.parametrize("version", [12, 13, 14, 15, 16, 17, 18])
async def test_records_are_read_by_the_topics_name_and_from_version_13_on_by_its_id(
    peer: WireClient, version: int
) -> None:
    name = fresh("read")
    topic_id = await make_topic(peer, name)
    topic = topic_id if version >= 13 else name
    await peer.ask(PRODUCE, 3, produce(name, batch(b"first", b"second")))
    (part,) = read(await peer.ask(FETCH, version, fetch_from(topic, version)), version)
    assert (part.code, part.high, part.diverging) == (Code.NONE, 2, None)
    assert b"first" in part.records
    (part,) = read(await peer.ask(FETCH, version, fetch_from(topic, version, partition=7)), version)
    assert (part.code, part.high, part.records) == (Code.UNKNOWN_TOPIC_OR_PARTITION, -1, b"")


async def test_reading_from_a_topic_that_was_made_again_is_refused_by_the_old_id(peer: WireClient) -> None:
    name = fresh("reread")
    old = await make_topic(peer, name)
    await delete_topic(peer, name)
    new = await make_topic(peer, name)
    for topic, code in ((old, Code.UNKNOWN_TOPIC_ID), (NOBODY, Code.UNKNOWN_TOPIC_ID), (new, Code.NONE)):
        (part,) = read(await peer.ask(FETCH, 13, fetch_from(topic, 13)), 13)
        assert part.code == code


# The last where the deletion was quicker than the fetch; nothing tells that a fetch waits.
GONE = (Code.UNKNOWN_TOPIC_OR_PARTITION, Code.NOT_LEADER_OR_FOLLOWER, Code.UNKNOWN_TOPIC_ID)


@pytest.mark.parametrize("version", [11, 12, 13])
async def test_a_waiting_fetch_ends_when_its_topic_is_deleted(
    peer: WireClient, other: WireClient, version: int
) -> None:
    name = fresh("awaited")
    topic_id = await make_topic(peer, name)
    topic = topic_id if version >= 13 else name
    await peer.put(FETCH, version, fetch_from(topic, version, max_wait=60_000))
    await delete_topic(other, name)
    (part,) = read((await peer.take(timeout=15))[1], version)
    assert part.code in GONE
