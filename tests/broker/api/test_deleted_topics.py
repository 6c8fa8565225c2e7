"""What is left of a deleted topic: nothing that another topic of its name could inherit; on either broker."""

import asyncio

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import Reader, Writer
from tests.broker.api.test_leader_epochs import STARTING, commit, committed
from tests.broker.requests_and_answers import (
    END_TXN,
    FETCH,
    INIT_PRODUCER_ID,
    PRODUCE,
    batch,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.topics_on_either import delete_topic, find_coordinator, fresh, make_topic
from tests.broker.wire_client import WireClient

ADD_PARTITIONS, ADD_OFFSETS, TXN_OFFSET_COMMIT = 24, 25, 28
NO_OFFSET = (-1, -1)
Producer = tuple[str, int, int]
"""Transactional id, producer id, epoch."""


async def settled(action: object) -> int:
    """Ask again while coordinators of Apache Kafka are starting."""
    async with asyncio.timeout(30):
        while (code := await action()) in (*STARTING, Code.CONCURRENT_TRANSACTIONS):  # type: ignore[operator]
            await asyncio.sleep(0.05)
    return code  # type: ignore[no-any-return]


async def make_group(peer: WireClient, topic: str, offset: int) -> str:
    group = fresh("group")
    await find_coordinator(peer, group)
    assert await settled(lambda: commit(peer, 7, group, topic, offset, 0)) == Code.NONE
    return group


async def make_producer(peer: WireClient) -> Producer:
    name = fresh("transactional")
    await find_coordinator(peer, name, is_transaction=True)
    found: list[int] = []

    async def initialize() -> int:
        answer = await peer.ask(INIT_PRODUCER_ID, 1, Writer().string(name).int32(60_000))
        answer.int32()
        code = answer.int16()
        found[:] = answer.int64(), answer.int16()
        return code

    assert await settled(initialize) == Code.NONE
    return name, found[0], found[1]


def by(producer: Producer) -> Writer:
    return Writer().string(producer[0]).int64(producer[1]).int16(producer[2])


def code_of_only(answer: Reader) -> int:
    """Return the code of the one partition that an answer is about."""
    answer.int32()
    ((code,),) = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16())[1]))[1])
    return code


async def add_partition(peer: WireClient, producer: Producer, topic: str) -> int:
    body = by(producer).int32(1).string(topic).int32(1).int32(0)
    return code_of_only(await peer.ask(ADD_PARTITIONS, 2, body))


async def add_group(peer: WireClient, producer: Producer, group: str) -> int:
    answer = await peer.ask(ADD_OFFSETS, 2, by(producer).string(group))
    answer.int32()
    return answer.int16()


async def commit_in(peer: WireClient, producer: Producer, group: str, topic: str, offset: int) -> int:
    body = Writer().string(producer[0]).string(group).int64(producer[1]).int16(producer[2])
    body.int32(1).string(topic).int32(1).int32(0).int64(offset).int32(0).string("")
    return code_of_only(await peer.ask(TXN_OFFSET_COMMIT, 2, body))


async def end(peer: WireClient, producer: Producer, *, commit: bool) -> int:
    answer = await peer.ask(END_TXN, 2, by(producer).boolean(commit))
    answer.int32()
    return answer.int16()


def written_by(producer: Producer, *values: bytes, sequence: int) -> bytes:
    transactional = 0x10
    return batch(
        *values,
        attributes=transactional,
        producer_id=producer[1],
        producer_epoch=producer[2],
        base_sequence=sequence,
    )


async def put(peer: WireClient, topic: str, records: bytes, transactional_id: str | None = None) -> tuple[int, int]:
    body = produce(topic, records, transactional_id=transactional_id)
    return produced(await peer.ask(PRODUCE, 3, body))[0]


async def test_committed_offsets_go_with_their_topic(peer: WireClient) -> None:
    name, kept = fresh("gone"), fresh("kept")
    await make_topic(peer, name)
    await make_topic(peer, kept)
    group = await make_group(peer, name, 5)
    assert await commit(peer, 7, group, kept, 7, 0) == Code.NONE
    await delete_topic(peer, name)
    await until(lambda: committed(peer, 5, group, name), NO_OFFSET)
    await make_topic(peer, name)
    assert await committed(peer, 5, group, name) == NO_OFFSET
    assert await committed(peer, 5, group, kept) == (7, 0)


async def until(action: object, wanted: object) -> None:
    async with asyncio.timeout(15):
        while await action() != wanted:  # type: ignore[operator]
            await asyncio.sleep(0.05)


async def test_sequence_numbers_go_with_their_topic(peer: WireClient) -> None:
    name = fresh("gone")
    await make_topic(peer, name)
    _, producer_id, epoch = await make_producer(peer)
    first, next_one = (
        batch(b"x", producer_id=producer_id, producer_epoch=epoch, base_sequence=number) for number in (0, 1)
    )
    assert await put(peer, name, first) == (Code.NONE, 0)
    assert await put(peer, name, next_one) == (Code.NONE, 1)
    await delete_topic(peer, name)
    await make_topic(peer, name)
    assert await put(peer, name, first) == (Code.NONE, 0), "not taken for a repetition"


async def test_a_producer_goes_on_with_its_numbers_in_a_topic_that_was_made_again(peer: WireClient) -> None:
    name = fresh("gone")
    await make_topic(peer, name)
    _, producer_id, epoch = await make_producer(peer)

    def numbered(sequence: int) -> bytes:
        return batch(b"x", producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)

    assert await put(peer, name, numbered(0)) == (Code.NONE, 0)
    await delete_topic(peer, name)
    await make_topic(peer, name)
    assert await put(peer, name, numbered(1)) == (Code.NONE, 0)
    assert await put(peer, name, numbered(3)) == (Code.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert await put(peer, name, numbered(2)) == (Code.NONE, 1)


async def test_an_open_transaction_of_a_deleted_topic_holds_nobody_up_in_the_next_one(peer: WireClient) -> None:
    name = fresh("gone")
    await make_topic(peer, name)
    producer = await make_producer(peer)
    assert await settled(lambda: add_partition(peer, producer, name)) == Code.NONE
    assert (await put(peer, name, written_by(producer, b"open", sequence=0), producer[0]))[0] == Code.NONE
    assert await stable(peer, name) == 0
    await delete_topic(peer, name)
    await make_topic(peer, name)
    assert await put(peer, name, batch(b"plain")) == (Code.NONE, 0)
    assert await stable(peer, name) == 1


async def stable(peer: WireClient, topic: str) -> int:
    ((_, offset, _),) = fetched(await peer.ask(FETCH, 4, fetch(topic, isolation=1)))
    return offset


@pytest.mark.parametrize("is_committed", [True, False], ids=["commit", "abort"])
async def test_a_transaction_ends_though_its_topic_was_deleted(peer: WireClient, is_committed: bool) -> None:
    name = fresh("gone")
    await make_topic(peer, name)
    producer = await make_producer(peer)
    assert await settled(lambda: add_partition(peer, producer, name)) == Code.NONE
    assert (await put(peer, name, written_by(producer, b"open", sequence=0), producer[0]))[0] == Code.NONE
    await delete_topic(peer, name)
    assert await end(peer, producer, commit=is_committed) == Code.NONE
    other = fresh("other")
    await make_topic(peer, other)
    assert await settled(lambda: add_partition(peer, producer, other)) == Code.NONE, "the next one begins"


async def test_an_offset_in_an_open_transaction_does_not_reach_the_next_topic_of_the_name(peer: WireClient) -> None:
    name = fresh("gone")
    await make_topic(peer, name)
    group = await make_group(peer, name, 5)
    producer = await make_producer(peer)
    assert await settled(lambda: add_group(peer, producer, group)) == Code.NONE
    assert await settled(lambda: commit_in(peer, producer, group, name, 9)) == Code.NONE
    await delete_topic(peer, name)
    await until(lambda: committed(peer, 5, group, name), NO_OFFSET)
    await make_topic(peer, name)
    assert await end(peer, producer, commit=True) == Code.NONE
    assert await settled(lambda: add_group(peer, producer, group)) == Code.NONE, "the end is complete"
    assert await committed(peer, 5, group, name) == NO_OFFSET
