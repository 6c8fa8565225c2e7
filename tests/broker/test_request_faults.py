"""Faults on order reach the client in the shape each API has for them, and change nothing else."""

import time

import pytest

from octopus.broker.codes import Code
from octopus.broker.server import Broker
from octopus.broker.wire import Reader, Writer
from tests.broker.requests_and_answers import (
    API_VERSIONS,
    CREATE_TOPICS,
    END_TXN,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    PRODUCE,
    SYNC_GROUP,
    batch,
    create_topic,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.wire_client import WireClient, connected


def one_topic(body: Writer) -> Writer:
    return body.int32(1).string("t").int32(1).int32(0)


def find_coordinator(answer: Reader) -> int:
    answer.int32()
    return answer.int16()


def metadata(answer: Reader) -> int:
    answer.array(lambda: (answer.int32(), answer.string(), answer.int32(), answer.nullable_string()))
    answer.int32()
    [(code, partitions)] = answer.array(
        lambda: (answer.int16(), (answer.string(), answer.boolean(), answer.array(answer.int32))[2])
    )
    assert partitions == []
    return code


def offset_fetch(answer: Reader) -> int:
    answer.int32()
    assert answer.int32() == 0, "a refused request has no partitions"
    return answer.int16()


def one_partition(answer: Reader) -> int:
    assert answer.int32() == 1
    assert answer.string() == "t"
    assert answer.int32() == 1
    assert answer.int32() == 0
    return answer.int16()


def after_throttle(answer: Reader) -> int:
    answer.int32()
    return answer.int16()


JOIN = Writer().string("g").int32(10_000).int32(10_000).string("").string("consumer").int32(1).string("range").blob(b"")
SYNC = Writer().string("g").int32(1).string("m").int32(0)
COMMIT = one_topic(Writer().string("g").int32(-1).string("").int64(-1)).int64(5).string("")

SHAPES = {
    "Produce": (PRODUCE, 3, produce("t", batch(b"x")), lambda answer: produced(answer)[0][0]),
    "Fetch": (FETCH, 4, fetch("t", max_wait=10_000), lambda answer: fetched(answer)[0][0]),
    "ListOffsets": (LIST_OFFSETS, 1, one_topic(Writer().int32(-1)).int64(-1), one_partition),
    "Metadata": (METADATA, 1, Writer().int32(1).string("t"), metadata),
    "OffsetCommit": (OFFSET_COMMIT, 2, COMMIT, one_partition),
    "OffsetFetch": (OFFSET_FETCH, 3, one_topic(Writer().string("g")), offset_fetch),
    "FindCoordinator": (FIND_COORDINATOR, 1, Writer().string("g").int8(0), find_coordinator),
    "JoinGroup": (JOIN_GROUP, 2, JOIN, after_throttle),
    "SyncGroup": (SYNC_GROUP, 1, SYNC, after_throttle),
    "Heartbeat": (HEARTBEAT, 1, Writer().string("g").int32(1).string("m"), after_throttle),
    "InitProducerId": (INIT_PRODUCER_ID, 0, Writer().string(None).int32(1000), after_throttle),
    "EndTxn": (END_TXN, 0, Writer().string("x").int64(1).int16(0).boolean(True), after_throttle),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_failure_on_order_is_answered_in_the_apis_own_shape(
    broker: Broker, client: WireClient, name: str
) -> None:
    key, version, body, code_of = SHAPES[name]
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.fail(key, Code.NOT_COORDINATOR, Code.REQUEST_TIMED_OUT)
    assert code_of(await client.ask(key, version, body)) == Code.NOT_COORDINATOR
    assert code_of(await client.ask(key, version, body)) == Code.REQUEST_TIMED_OUT
    assert broker.counters()["errors"] == {f"{name} 16": 1, f"{name} 7": 1}


async def test_a_failed_produce_appends_nothing_and_the_next_one_does(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.fail(PRODUCE, Code.NOT_LEADER_OR_FOLLOWER)
    await client.ask(PRODUCE, 3, produce("t", batch(b"x")))
    assert produced(await client.ask(PRODUCE, 3, produce("t", batch(b"x")))) == [(Code.NONE, 0)]


async def test_a_delay_on_order_holds_one_connection_and_no_other(broker: Broker, client: WireClient) -> None:
    broker.faults.delay(API_VERSIONS, 0.2)
    started = time.monotonic()
    await client.put(API_VERSIONS, 0)
    async with connected(broker.address) as other:
        await other.ask(API_VERSIONS, 0)
        assert time.monotonic() - started < 0.2
    await client.take()
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(("moment", "stored"), [("before", 0), ("after", 1)])
async def test_a_drop_on_order_closes_the_connection_before_or_after_the_deed(
    broker: Broker, client: WireClient, moment: str, stored: int
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.drop(PRODUCE, 1, moment)
    await client.put(PRODUCE, 3, produce("t", batch(b"x")))
    assert await client.is_closed()
    async with connected(broker.address) as other:
        assert produced(await other.ask(PRODUCE, 3, produce("t", batch(b"x")))) == [(Code.NONE, stored)]


async def test_faults_not_used_yet_can_be_forgotten(broker: Broker, client: WireClient) -> None:
    broker.faults.drop(API_VERSIONS, 5)
    broker.faults.clear()
    assert (await client.ask(API_VERSIONS, 0)).int16() == Code.NONE
