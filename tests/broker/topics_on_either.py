"""Topics on either broker, the embedded one and Apache Kafka: made, described and deleted, in flexible versions too."""

import asyncio
import uuid
from dataclasses import dataclass

from octopus.broker.codes import Code
from octopus.broker.wire import NO_ID, Reader, Writer
from tests.broker.requests_and_answers import (
    CREATE_TOPICS,
    DELETE_TOPICS,
    FETCH,
    FIND_COORDINATOR,
    METADATA,
    create_topic,
    fetch,
    fetched,
)
from tests.broker.wire_client import WireClient

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
    """Return what a Metadata answer (4 to 13) says of topics, and the operations allowed on the cluster."""
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
    assert version <= 12 or answer.int16() == Code.NONE
    if version >= 9:
        answer.tags()
    assert answer.remaining == 0
    return topics, operations


async def ask_metadata(peer: WireClient, version: int, *topics: object, **options: object) -> list[Described]:
    answer = await peer.ask(METADATA, version, metadata(version, *topics, **options))  # type: ignore[arg-type]
    return described(answer, version)[0]


async def make_topic(
    peer: WireClient, name: str, partitions: int = 1, config: dict[str, str] | None = None
) -> uuid.UUID:
    """Create a topic that keeps whatever it gets, records of long ago too; return its id when its partitions are served."""
    config = {"retention.ms": "-1", **(config or {})}
    await peer.ask(CREATE_TOPICS, 2, create_topic(name, partitions, config))
    for partition in range(partitions):
        async with asyncio.timeout(15):
            while fetched(await peer.ask(FETCH, 4, fetch(name, partition=partition)))[0][0] != Code.NONE:
                await asyncio.sleep(0.02)
    (topic,) = await ask_metadata(peer, 12, name)
    return topic.id


async def delete_topic(peer: WireClient, name: str) -> None:
    """Delete a topic and wait until nothing of it is served."""
    await peer.ask(DELETE_TOPICS, 1, Writer().int32(1).string(name).int32(5000))
    async with asyncio.timeout(15):
        while (await ask_metadata(peer, 12, name))[0].code != Code.UNKNOWN_TOPIC_OR_PARTITION:
            await asyncio.sleep(0.02)


def fetch_from(
    topic: uuid.UUID | str,
    version: int,
    offset: int = 0,
    *,
    partition: int = 0,
    session: tuple[int, int] = (0, -1),
    current_epoch: int = -1,
    last_epoch: int = -1,
    max_wait: int = 0,
) -> Writer:
    """Ask for records; versions 7 to 18."""
    body = Writer(version >= 12)
    if version <= 14:
        body.int32(-1)
    body.int32(max_wait).int32(1).int32(2**20).int8(0).int32(session[0]).int32(session[1])

    def part(number: int) -> None:
        body.int32(number)
        if version >= 9:
            body.int32(current_epoch)
        body.int64(offset)
        if version >= 12:
            body.int32(last_epoch)
        body.int64(-1).int32(2**20)

    def write(each: uuid.UUID | str) -> None:
        (body.uuid(each) if isinstance(each, uuid.UUID) else body.string(each)).structs([partition], part)

    body.structs([topic], write).structs([], id)
    return body.string("") if version >= 11 else body


@dataclass(frozen=True)
class Part:
    code: int
    high: int
    records: bytes
    diverging: tuple[int, int] | None = None


def read(answer: Reader, version: int, code: int = 0) -> list[Part]:
    """Return what a Fetch answered for each partition, `code` for the request as a whole."""
    if version >= 12:
        answer.become_flexible()
    answer.int32()
    assert answer.int16() == code
    answer.int32()

    def part() -> Part:
        answer.int32()
        code, high, _stable, _start = answer.int16(), answer.int64(), answer.int64(), answer.int64()
        answer.structs(lambda: (answer.int64(), answer.int64()))
        if version >= 11:
            answer.int32()
        records = answer.blob()
        return Part(code, high, records, diverging(answer) if version >= 12 else None)

    def topic() -> list[Part]:
        _ = answer.uuid() if version >= 13 else answer.string()
        return answer.array(part)

    parts = answer.structs(topic)
    if version >= 12:
        answer.tags()
    assert answer.remaining == 0
    return [each for topic in parts for each in topic]


def diverging(answer: Reader) -> tuple[int, int] | None:
    """Read the tagged fields of a partition: the first says where what was read is different from what is here."""
    found = None
    for _ in range(answer.int8()):
        tag, size = answer.int8(), answer.int8()
        if tag == 0:
            found = answer.int32(), answer.int64()
            answer.tags()
        else:
            for _ in range(size):
                answer.int8()
    return found


async def find_coordinator(peer: WireClient, name: str, *, is_transaction: bool = False) -> None:
    """Wait until somebody coordinates a group, or a transactional id."""
    async with asyncio.timeout(30):
        while True:
            answer = await peer.ask(FIND_COORDINATOR, 1, Writer().string(name).int8(is_transaction))
            answer.int32()
            if answer.int16() == Code.NONE:
                return
            await asyncio.sleep(0.05)
