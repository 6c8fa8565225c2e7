"""Throttled answers say how long to wait, and their connection is not read meanwhile."""

import time

import pytest

from octopus.broker.api import TABLE
from octopus.broker.codes import Code
from octopus.broker.server import Broker
from octopus.broker.throttling import Quotas, say
from octopus.broker.wire import Reader, Writer
from tests.broker.requests_and_answers import (
    API_VERSIONS,
    CREATE_TOPICS,
    FETCH,
    METADATA,
    PRODUCE,
    batch,
    create_topic,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.test_request_faults import SHAPES
from tests.broker.wire_client import WireClient, connected


def last_int32(answer: Reader) -> int:
    rest = bytes(answer._data)  # type: ignore[attr-defined]
    return int.from_bytes(rest[-4:], "big")


async def test_a_throttled_answer_comes_at_once_and_the_next_request_waits(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.throttle(PRODUCE, 0.3)
    started = time.monotonic()
    answer = await client.ask(PRODUCE, 3, produce("t", batch(b"x")))
    assert time.monotonic() - started < 0.2
    assert produced(answer, throttle=300) == [(Code.NONE, 0)], "it is carried out"
    async with connected(broker.address) as other:
        await other.ask(API_VERSIONS, 0)
    assert time.monotonic() - started < 0.3, "other connections are not held"
    await client.ask(API_VERSIONS, 0)
    assert time.monotonic() - started >= 0.3


async def test_a_throttled_fetch_is_empty_and_what_was_there_comes_later(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.ask(PRODUCE, 3, produce("t", batch(b"x")))
    broker.faults.throttle(FETCH, 0.1)
    answer = await client.ask(FETCH, 4, fetch("t", max_wait=10_000))
    assert (answer.int32(), answer.int32(), answer.remaining) == (100, 0, 0)
    assert len(fetched(await client.ask(FETCH, 4, fetch("t", max_wait=10_000)))) == 1


# OffsetCommit and ListOffsets have no place for it in the versions whose shapes are written down; Fetch is tested above.
ELSEWHERE = (8, 2, FETCH)


@pytest.mark.parametrize(
    "name",
    [name for name, (key, version, *_) in SHAPES.items() if (key, version) != (METADATA, 1) and key not in ELSEWHERE],
)
async def test_every_api_says_it_where_its_answer_has_the_place(broker: Broker, client: WireClient, name: str) -> None:
    key, version, body, _ = SHAPES[name]
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.throttle(key, 0.05)
    answer = await client.ask(key, version, body)
    if key == PRODUCE:
        assert last_int32(answer) == 50
    else:
        assert answer.int32() == 50


async def test_the_answer_about_deleted_offsets_says_it_behind_its_code(broker: Broker, client: WireClient) -> None:
    broker.faults.throttle(47, 0.05)
    answer = await client.ask(47, 0, Writer().string("g").int32(0))
    assert (answer.int16(), answer.int32(), answer.int32()) == (Code.GROUP_ID_NOT_FOUND, 50, 0)


def test_no_api_is_forgotten() -> None:
    """Every answer that has a field for it gets it: those of these APIs have none in any version that is served."""
    told = [key for key, api in TABLE.items() if _is_told(key, api.most)]
    assert sorted(TABLE.keys() - told) == [17, 36]


def _is_told(key: int, version: int) -> bool:
    body = Writer().int32(0).int32(0)
    say(body, key, version, 1.0)
    return b"".join(map(bytes, body.frame(0)[1:])) != bytes(8)


async def test_overlapping_requests_are_muted_until_the_longest_wait_is_over(
    broker: Broker, client: WireClient
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.throttle(PRODUCE, 0.3)
    broker.faults.throttle(PRODUCE, 0.05)
    started = time.monotonic()
    for _ in range(2):
        await client.put(PRODUCE, 3, produce("t", batch(b"x")))
    for _ in range(2):
        await client.take()
    await client.ask(API_VERSIONS, 0)
    assert time.monotonic() - started >= 0.3


async def test_a_client_that_leaves_while_it_is_muted_leaves_nothing_behind(broker: Broker) -> None:
    async with connected(broker.address) as client:
        broker.faults.throttle(API_VERSIONS, 60)
        await client.ask(API_VERSIONS, 0)
    async with connected(broker.address) as client:
        await client.ask(API_VERSIONS, 0)


async def test_a_client_over_its_quota_is_throttled_and_gets_everything_in_the_end(
    broker: Broker, client: WireClient
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    broker.faults.quotas.rates["produce"] = 20_000
    started = time.monotonic()
    for _ in range(6):
        await client.put(PRODUCE, 3, produce("t", batch(bytes(5000))))
        await client.take()
    assert time.monotonic() - started >= 0.2, "30 kB, of which 20 were saved up; the last wait is still to come"
    broker.faults.quotas.rates = {"fetch": 20_000}
    position, empty = 0, 0
    while position < 6:
        found = fetched(await client.ask(FETCH, 4, fetch("t", position, max_bytes=6000)))
        empty += not found
        position += len(found)
    assert empty


def test_a_quota_saves_up_a_second_and_is_each_clients_own() -> None:
    quotas = Quotas({"request": 10.0})
    for _ in range(10):
        quotas.charge("request", "a", 1, now=100.0)
    assert quotas.debt("request", "a", now=100.0) == 0.0
    quotas.charge("request", "a", 5, now=100.0)
    assert quotas.debt("request", "a", now=100.0) == pytest.approx(0.5)
    assert quotas.debt("request", "a", now=100.3) == pytest.approx(0.2)
    assert quotas.debt("request", "b", now=100.0) == 0.0
    assert quotas.debt("produce", "a", now=100.0) == 0.0
