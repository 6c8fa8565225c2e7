"""Frames, order, limits: what a connection may do, and that no other connection notices."""

import asyncio
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octopus.broker.api import TABLE
from octopus.broker.codes import Code
from octopus.broker.limits import Limits
from octopus.broker.server import Broker
from octopus.broker.settings import BrokerSettings
from octopus.broker.wire import Writer
from octopus.errors import ConfigurationError
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
from tests.broker.wire_client import Start, WireClient, connected, content_of, eventually, frame


async def is_alive(broker: Broker) -> bool:
    async with connected(broker.address) as client:
        return (await client.ask(API_VERSIONS, 0)).int16() == Code.NONE


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────

ADVERTISED = {
    0: (0, 13), 1: (4, 18), 2: (1, 11), 3: (0, 13), 8: (2, 10), 9: (1, 10), 10: (0, 2), 11: (0, 5), 12: (0, 3), 13: (0, 3),
    14: (0, 3), 15: (0, 4), 16: (0, 5), 17: (0, 1), 18: (0, 2), 19: (0, 7), 20: (0, 6), 21: (0, 1), 22: (0, 1),
    23: (2, 4), 24: (0, 2), 25: (0, 2), 26: (0, 2), 28: (0, 4), 32: (0, 4), 33: (0, 1), 35: (0, 1), 36: (0, 1), 37: (0, 1),
    42: (0, 1), 44: (0, 0), 47: (0, 0), 61: (0, 0), 65: (0, 0), 66: (0, 2), 75: (0, 0),
}  # fmt: skip


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_exactly_the_served_apis_are_advertised(client: WireClient, version: int) -> None:
    answer = await client.ask(API_VERSIONS, version)
    assert answer.int16() == Code.NONE
    listed = answer.array(lambda: (answer.int16(), (answer.int16(), answer.int16())))
    assert dict(listed) == ADVERTISED
    assert answer.remaining == (4 if version else 0)


async def test_a_newer_apiversions_is_answered_in_the_oldest_layout_and_the_connection_goes_on(
    client: WireClient,
) -> None:
    flexible = Writer().int8(0).int8(4)  # follows the client's name in a newer header
    answers = [await client.ask(API_VERSIONS, version, flexible) for version in (3, 4, 9)]
    for answer in answers:
        assert answer.int16() == Code.UNSUPPORTED_VERSION
        assert 6 * answer.int32() == answer.remaining
    assert (await client.ask(API_VERSIONS, 2)).int16() == Code.NONE


@pytest.mark.parametrize(
    ("key", "version"),
    [(PRODUCE, 2), (PRODUCE, 14), (FETCH, 3), (FETCH, 19), (METADATA, 14), (999, 0), (-1, 0), (METADATA, -1)],
)
async def test_a_version_that_is_not_served_closes_the_connection(
    broker: Broker, client: WireClient, key: int, version: int
) -> None:
    await client.put(key, version, Writer().int32(0))
    assert await client.is_closed()
    assert await is_alive(broker)


# ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [-1, 0, 9, 100 * 2**20 + 1, 2**31 - 1])
async def test_an_impossible_size_closes_the_connection_before_anything_is_allocated(
    broker: Broker, client: WireClient, size: int
) -> None:
    await client.send(struct.pack(">i", size))
    assert await client.is_closed()
    assert broker.counters()["bytes_in_flight"] == 0


async def test_a_frame_may_arrive_byte_by_byte(client: WireClient) -> None:
    for byte in frame(API_VERSIONS, 0, 5):
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.take())[0] == 5


async def test_many_frames_may_arrive_at_once_and_are_answered_in_order(client: WireClient) -> None:
    kinds = [(API_VERSIONS, 0, Writer()), (METADATA, 0, Writer().int32(0))]
    await client.send(b"".join(frame(*kinds[i % 2][:2], i, kinds[i % 2][2]) for i in range(100)))
    assert [(await client.take())[0] for _ in range(100)] == list(range(100))


async def test_a_frame_that_never_ends_is_given_up(start: Start) -> None:
    broker = await start(limits=Limits(frame_timeout=0.05))
    async with connected(broker.address) as client:
        await client.send(frame(API_VERSIONS, 0, 1)[:-1])
        assert await client.is_closed()
    async with connected(broker.address) as idle:
        await asyncio.sleep(0.1)
        assert (await idle.ask(API_VERSIONS, 0)).int16() == Code.NONE, "silence between frames is no offence"


BODIES = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda count, rest: struct.pack(">i", count) + rest, st.integers(-(2**31), 2**31 - 1), st.binary(max_size=40)
    ),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.lists(st.tuples(st.sampled_from([*TABLE, 999]), st.integers(0, 12), BODIES), min_size=1, max_size=3),
    st.integers(-8, 8),
)
async def test_no_garbage_harms_the_broker(
    broker: Broker, caplog: pytest.LogCaptureFixture, requests: list[tuple[int, int, bytes]], lie: int
) -> None:
    async with connected(broker.address) as client:
        for key, version, body in requests:
            content = struct.pack(">hhih", key, version, 1, -1) + body
            await client.send(struct.pack(">i", max(0, len(content) + lie)) + content)
    async with connected(broker.address) as other:
        assert (await other.ask(API_VERSIONS, 0)).int16() == Code.NONE
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert not tracebacks, "a fault of the client's was mistaken for one of ours"


@pytest.mark.parametrize("api", TABLE.values(), ids=lambda api: api.name)
async def test_a_body_cut_anywhere_closes_only_its_own_connection(broker: Broker, api: object) -> None:
    async with connected(broker.address) as client:
        await client.send(frame(api.key, api.most, 1, Writer().int16(30)))
        if api.key == API_VERSIONS:
            assert (await client.take())[0] == 1
        else:
            assert await client.is_closed()
    assert await is_alive(broker)


# ── order and waiting ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_waiting_fetch_holds_what_follows_and_is_woken_by_a_produce_of_another(
    broker: Broker, client: WireClient
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    first = await client.put(FETCH, 4, fetch("t", max_wait=20_000))
    second = await client.put(API_VERSIONS, 0)
    async with connected(broker.address) as producer:
        assert produced(await producer.ask(PRODUCE, 3, produce("t", batch(b"x")))) == [(Code.NONE, 0)]
    correlation, answer = await client.take()
    assert correlation == first
    [(code, _, records)] = fetched(answer)
    assert (code, records[61:]) == (Code.NONE, batch(b"x")[61:])
    assert (await client.take())[0] == second


async def test_no_wakeup_is_missed_however_close_append_and_fetch_are(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    async with connected(broker.address) as producer:
        for number in range(100):
            first, second = (client, producer) if number % 2 else (producer, client)
            requests = {
                client: (FETCH, 4, fetch("t", number, max_wait=20_000)),
                producer: (PRODUCE, 3, produce("t", batch(b"x"))),
            }
            await asyncio.gather(first.put(*requests[first]), second.put(*requests[second]))
            await producer.take()
            [(code, _, records)] = fetched((await client.take())[1])
            assert (code, bool(records)) == (Code.NONE, True)


async def test_a_fetch_waits_for_min_bytes_and_not_for_less(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    size = len(batch(b"x"))
    await client.put(FETCH, 4, fetch("t", max_wait=20_000, min_bytes=2 * size))
    async with connected(broker.address) as producer:
        await producer.ask(PRODUCE, 3, produce("t", batch(b"x")))
        with pytest.raises(TimeoutError):
            await client.take(timeout=0.1)
        await producer.ask(PRODUCE, 3, produce("t", batch(b"x")))
    [(code, _, records)] = fetched((await client.take())[1])
    assert (code, len(records)) == (Code.NONE, 2 * size)


async def test_a_fetch_without_news_is_answered_empty_when_its_time_is_up(client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    assert fetched(await client.ask(FETCH, 4, fetch("t", max_wait=30))) == [(Code.NONE, 0, b"")]


async def test_deleting_a_topic_ends_the_fetches_that_wait_on_it(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.put(FETCH, 4, fetch("t", max_wait=20_000))
    body = Writer()
    async with connected(broker.address) as admin:
        await admin.ask(20, 1, body.array(["t"], body.string).int32(1000))
    [(code, _, _)] = fetched((await client.take())[1])
    assert code == Code.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize(
    ("topic", "offset", "code"),
    [("missing", 0, Code.UNKNOWN_TOPIC_OR_PARTITION), ("t", 99, Code.OFFSET_OUT_OF_RANGE)],
)
async def test_a_fetch_with_an_error_is_answered_at_once(
    client: WireClient, topic: str, offset: int, code: Code
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    [(answered, _, _)] = fetched(await client.ask(FETCH, 4, fetch(topic, offset, max_wait=20_000)))
    assert answered == code


async def test_a_lost_connection_leaves_no_waiting_fetch_behind(broker: Broker) -> None:
    async with connected(broker.address) as client:
        await client.ask(CREATE_TOPICS, 2, create_topic("t"))
        await client.put(FETCH, 4, fetch("t", max_wait=60_000))
        await eventually(lambda: bool(broker._node.waits))
    await eventually(lambda: not broker._node.waits)


async def test_produce_requests_of_one_connection_overlap_and_are_answered_in_order(client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    sent = [await client.put(PRODUCE, 3, produce("t", batch(b"%d" % i))) for i in range(100)]
    answers = [await client.take() for _ in range(100)]
    assert [correlation for correlation, _ in answers] == sent
    assert [produced(answer) for _, answer in answers] == [[(Code.NONE, i)] for i in range(100)]


async def test_produce_without_acknowledgement_is_not_answered(client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.put(PRODUCE, 3, produce("t", batch(b"x"), acks=0))
    [(code, _, records)] = fetched(await client.ask(FETCH, 4, fetch("t", max_wait=5000)))
    assert (code, bool(records)) == (Code.NONE, True)


async def test_a_failed_produce_without_acknowledgement_closes_the_connection(client: WireClient) -> None:
    await client.put(PRODUCE, 3, produce("missing", batch(b"x"), acks=0))
    assert await client.is_closed()


@pytest.mark.parametrize(
    ("records", "acks", "code"),
    [
        (batch(b"x")[:-1] + b"?", -1, Code.CORRUPT_MESSAGE),
        (batch(b"x")[:40], -1, Code.CORRUPT_MESSAGE),
        (b"", -1, None),
        (batch(b"x"), 2, Code.INVALID_REQUIRED_ACKS),
        (batch(b"x", attributes=0x30, producer_id=1, producer_epoch=0), -1, Code.INVALID_RECORD),
        (batch(b"x", attributes=0x10, producer_id=1, producer_epoch=0, base_sequence=0), -1, Code.INVALID_TXN_STATE),
        (batch(b"x" * 1_100_000), -1, Code.MESSAGE_TOO_LARGE),
    ],
    ids=["checksum", "cut", "empty", "acks", "control batch", "transaction", "size"],
)
async def test_what_is_not_a_clients_batch_is_refused(
    client: WireClient, records: bytes, acks: int, code: Code | None
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    [(answered, _)] = produced(await client.ask(PRODUCE, 3, produce("t", records, acks)))
    assert answered == code if code is not None else answered != Code.NONE
    assert fetched(await client.ask(FETCH, 4, fetch("t"))) == [(Code.NONE, 0, b"")]


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_connections_beyond_the_cap_are_closed_and_counted_where_all_have_work(start: Start) -> None:
    broker = await start(limits=Limits(max_connections=1))
    async with connected(broker.address) as first:
        await first.ask(CREATE_TOPICS, 2, create_topic("t"))
        await first.put(FETCH, 4, fetch("t", max_wait=60_000))
        await eventually(lambda: broker.counters()["requests"].get("Fetch") == 1)  # type: ignore[union-attr]
        async with connected(broker.address) as second:
            assert await second.is_closed()
        assert broker.counters()["connections_refused"] == 1
        await broker.stop()
        assert fetched((await first.take())[1])[0][0] == Code.NONE, "what it waits for was given up"


async def test_large_requests_share_a_budget_and_none_is_forgotten(start: Start) -> None:
    broker = await start(limits=Limits(max_in_flight_bytes=400_000))
    async with connected(broker.address) as admin:
        await admin.ask(CREATE_TOPICS, 2, create_topic("t"))

    async def send(index: int) -> tuple[int, int]:
        async with connected(broker.address) as client:
            [result] = produced(await client.ask(PRODUCE, 3, produce("t", batch(bytes([index]) * 300_000))))
            return result

    results = await asyncio.gather(*map(send, range(8)))
    assert {code for code, _ in results} == {Code.NONE}
    assert {offset for _, offset in results} == set(range(8))
    await eventually(lambda: broker.counters()["bytes_in_flight"] == 0)


async def test_a_slow_reader_stops_being_served_but_the_broker_goes_on(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    for _ in range(4):
        await client.ask(PRODUCE, 3, produce("t", batch(b"x" * 900_000)))
    async with connected(broker.address) as slow:
        for _ in range(20):
            await slow.put(FETCH, 4, fetch("t", max_bytes=4_000_000))
        await asyncio.sleep(0.1)
        assert broker.counters()["requests"]["Fetch"] < 10
        assert await is_alive(broker)
        sizes = [len(fetched((await slow.take())[1])[0][2]) for _ in range(20)]
        assert min(sizes) > 3_600_000


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "lab.example"])
def test_listening_where_others_can_reach_needs_authentication(host: str) -> None:
    with pytest.raises(ConfigurationError, match="without authentication"):
        BrokerSettings(host=host)
    assert BrokerSettings(host=host, passwords={"ada": "secret"}).needs_authentication


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
async def test_metadata_names_the_address_the_client_can_reach(start: Start, host: str) -> None:
    broker = await start(host=host)
    async with connected(broker.address) as client:
        answer = await client.ask(METADATA, 0, Writer().int32(0))
        [(node, named, port)] = answer.array(lambda: (answer.int32(), answer.string(), answer.int32()))
    assert (node, f"{named}:{port}") == (1, broker.address)
    assert port != 0


async def test_an_advertised_address_is_told_to_everybody(start: Start) -> None:
    broker = await start(advertised_host="broker.example", advertised_port=9092)
    async with connected(broker.address) as client:
        answer = await client.ask(METADATA, 0, Writer().int32(0))
        assert answer.array(lambda: (answer.int32(), answer.string(), answer.int32())) == [(1, "broker.example", 9092)]


async def test_counters_tell_what_happened(broker: Broker, client: WireClient) -> None:
    await client.ask(API_VERSIONS, 0)
    await client.ask(FETCH, 4, fetch("missing"))
    counters = broker.counters()
    assert counters["connections_open"] == counters["connections_total"] == 1
    assert counters["requests"] == {"ApiVersions": 1, "Fetch": 1}
    assert counters["errors"] == {"Fetch 3": 1}
    assert counters["bytes_in"] > len(content_of(fetch("missing")))
    assert counters["bytes_out"] > 0


async def test_stopping_ends_waiting_fetches_with_an_answer(start: Start) -> None:
    broker = await start()
    async with connected(broker.address) as client:
        await client.ask(CREATE_TOPICS, 2, create_topic("t"))
        await client.put(FETCH, 4, fetch("t", max_wait=60_000))
        await eventually(lambda: bool(broker._node.waits))
        async with asyncio.timeout(30):
            await broker.stop()
        assert fetched((await client.take())[1]) == [(Code.NONE, 0, b"")]
        assert await client.is_closed()
