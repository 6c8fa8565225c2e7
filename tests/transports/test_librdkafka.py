"""What only the second engine does, or does in its own way: incremental rebalances, KIP-848, a thread of its own."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from octopus.config import load
from octopus.errors import (
    ConfigurationError,
    ConnectionFailed,
    CorruptBatch,
    LoginRequired,
    NotAuthorized,
    PartitionLost,
    TransportError,
)
from octopus.events import TopicPartition
from octopus.testing.faults import EmbeddedBroker, TcpProxy
from octopus.transports.base import Admin, Commit, Outgoing, Producer, Transport
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka import pump
from octopus.transports.librdkafka.settings import client_options, group_options
from octopus.transports.opening import connect, consumer_options, open_transport

from .conftest import Join
from .engines import COOPERATIVE, KIP_848_ON_KAFKA, LIBRDKAFKA, is_incremental
from .members import Member, together
from .sasl_broker import SaslBroker
from .test_authentication import Tokens

INCREMENTAL = [each for each in LIBRDKAFKA if "eager" not in str(getattr(each, "values", each))]
FETCH, OFFSET_COMMIT, OFFSET_FETCH, HEARTBEAT = 1, 8, 9, 12

on_every_protocol = pytest.mark.parametrize("transport", LIBRDKAFKA, indirect=True)
on_incremental_ones = pytest.mark.parametrize("transport", INCREMENTAL, indirect=True)


# settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"assignor": "cooperative-sticky"}, r'"cooperative-sticky" does not go with engine "aiokafka".*sticky, range'),
        ({"group_protocol": "consumer"}, 'group_protocol "consumer" needs engine "librdkafka"'),
        ({"engine": "librdkafka", "assignor": "sticky"}, r"which takes auto, cooperative-sticky, range, roundrobin"),
        (
            {"engine": "librdkafka", "group_protocol": "consumer", "assignor": "roundrobin"},
            r'does not go with group_protocol "consumer", which takes auto, uniform, range',
        ),
        ({"engine": "kafka-python"}, "one of aiokafka, librdkafka"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_would(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load({"consumer": given})


@pytest.mark.parametrize(
    ("given", "assignor"),
    [
        ({}, "sticky"),
        ({"engine": "librdkafka"}, None),
        ({"engine": "librdkafka", "assignor": "range"}, "range"),
        ({"engine": "librdkafka", "group_protocol": "consumer"}, None),
    ],
)
def test_the_assignor_follows_from_the_engine_unless_one_is_named(given: dict[str, Any], assignor: str | None) -> None:
    settings = load({"consumer": given})
    assert consumer_options(settings.consumer, settings.worker).get("assignor") == assignor


def group_of(**different: Any) -> dict[str, Any]:
    plain = {
        "session_timeout": 45.0,
        "heartbeat_interval": None,
        "rebalance_timeout": 60.0,
        "group_instance_id": None,
        "assignor": None,
        "group_protocol": "classic",
    }
    return group_options("g", **{**plain, **different})


def test_the_new_protocol_is_told_nothing_that_brokers_decide() -> None:
    options = group_of(group_protocol="consumer", group_instance_id="me")
    assert options == {
        "group.id": "g",
        "group.protocol": "consumer",
        "group.instance.id": "me",
        "max.poll.interval.ms": 60000,
    }
    assert group_of(group_protocol="consumer", assignor="range")["group.remote.assignor"] == "range"


def test_an_assignor_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'sticky'; with librdkafka it must be one of range"):
        group_of(assignor="sticky")
    with pytest.raises(ConfigurationError, match="brokers deal partitions out"):
        group_of(assignor="cooperative-sticky", group_protocol="consumer")


def test_the_embedded_broker_says_that_it_has_no_new_protocol() -> None:
    with pytest.raises(ConfigurationError, match=r"KIP-848.*cooperative-sticky"):
        connect(load({"consumer": {"engine": "librdkafka", "group_protocol": "consumer"}}))


@pytest.mark.parametrize("brokers", ["", "host:9092"])
def test_a_package_that_is_missing_is_named_with_its_extra(brokers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("octopus.transports.librdkafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match=r'pip install "octopus-fabric\[librdkafka\]"'):
        connect(load({"brokers": brokers, "consumer": {"engine": "librdkafka"}}))


def test_credentials_and_files_are_passed_on_in_librdkafkas_words() -> None:
    options = client_options(
        KafkaSettings(brokers="h:1", sasl_mechanism="SCRAM-SHA-512", username="ada", password="secret")
    )
    assert options["security.protocol"] == "SASL_PLAINTEXT"
    assert (options["sasl.mechanism"], options["sasl.username"], options["sasl.password"]) == (
        "SCRAM-SHA-512",
        "ada",
        "secret",
    )
    with pytest.raises(ConfigurationError, match="password"):
        client_options(KafkaSettings(brokers="h:1", sasl_mechanism="PLAIN", username="ada"))
    with pytest.raises(ConfigurationError, match="ssl_context cannot be used"):
        client_options(KafkaSettings(brokers="h:1", ssl_context=object()))


# rebalances


@on_incremental_ones
async def test_kept_partitions_go_on_while_another_member_joins_and_leaves(
    transport: Transport, join: Join, producer: Producer, topic: str
) -> None:
    assert is_incremental(transport)
    first = await join(topic, topic)
    sent = 0
    over = asyncio.Event()

    async def publish() -> None:
        nonlocal sent
        while not over.is_set():
            await producer.send_many([Outgoing(topic, b"%d" % sent, partition=number) for number in range(3)])
            sent += 1
            await asyncio.sleep(0.01)

    publishing = asyncio.create_task(publish())
    await first.until(lambda: first.count > 30)
    second = await join(topic, topic, wait=False)
    longest = 0.0
    turned = time.monotonic()

    def is_over() -> bool:
        nonlocal longest, turned
        now, seen = time.monotonic(), sum(len(first.records[partition]) for partition in first.mine)
        if seen > before[0]:
            longest, turned, before[0] = max(longest, now - turned), now, seen
        return bool(second.mine) and second.count > 10

    before = [0]
    await together(is_over, first, second)
    assert longest < 2, "records of what stays go on coming while the group agrees"
    await second.consumer.stop()
    await first.until(lambda: len(first.mine) == 3)
    over.set()
    await publishing
    kept = first.changes[0][1] - first.changes[1][1]
    assert kept
    await first.until(lambda: all(len(first.records[partition]) >= sent for partition in kept))
    for partition in kept:
        assert first.values(partition) == [b"%d" % number for number in range(sent)], "nothing missing, nothing twice"
    assert [what for what, _ in first.changes] == ["assigned", "revoked", "assigned"]
    assert first.changes[1][1] == first.changes[2][1], "what was taken away, and no more, came back"


@on_every_protocol
async def test_a_static_member_that_restarts_causes_no_rebalance(join: Join, producer: Producer, topic: str) -> None:
    long = {"session_timeout": 30.0}  # that of the classic protocol: however slow it is, it is back in time
    other = await join(topic, topic, **long)
    static = await join(topic, topic, wait=False, group_instance_id="static", **long)
    await together(lambda: static.mine and other.mine and len(static.mine | other.mine) == 3, static, other)
    mine, seen = {*static.mine}, len(other.changes)
    await static.consumer.stop()
    again = await join(topic, topic, wait=False, group_instance_id="static", **long)
    await together(lambda: again.mine == mine, again, other)
    await producer.send_many([Outgoing(topic, b"x", partition=number) for number in range(3)])
    await together(lambda: again.count + other.count == 3, again, other)
    assert len(other.changes) == seen


@on_every_protocol
async def test_a_member_that_leaves_before_it_was_given_anything_is_not_waited_for(join: Join, topic: str) -> None:
    first = await join(topic, topic, session_timeout=30.0, heartbeat_interval=1.5)
    second = await join(topic, topic, wait=False, session_timeout=30.0, heartbeat_interval=1.5)
    await together(lambda: len(first.changes) > 1, first, second)  # the first one has given up something
    await second.consumer.stop()
    started = time.monotonic()
    await first.until(lambda: len(first.mine) == 3)
    assert time.monotonic() - started < 10, "it left, instead of being missed when its session was over"


@on_every_protocol
async def test_a_stop_in_the_middle_of_an_assignment_comes_at_once(transport: Transport, topic: str) -> None:
    class Slow(Member):
        async def assigned(self, partitions: object) -> None:
            self.changes.append(("assigned", frozenset()))
            await asyncio.sleep(60)

    member = Slow(transport, topic, [topic])
    await member.consumer.start(member)
    await member.until(lambda: member.changes)
    started = time.monotonic()
    await member.consumer.stop()
    assert time.monotonic() - started < 5
    with pytest.raises(TransportError, match="not running"):
        await member.turn()


@pytest.mark.parametrize("transport", [KIP_848_ON_KAFKA], indirect=True)
async def test_a_group_of_the_new_protocol_is_listed_and_keeps_its_offsets_while_it_has_members(
    join: Join, admin: Admin, topic: str
) -> None:
    member = await join(topic, topic)
    zero = TopicPartition(topic, 0)
    await member.consumer.commit({zero: Commit(3, "a map")})
    (group,) = [group for group in await admin.groups() if group.name == topic]
    assert group.members == (), "the requests that aiokafka knows do not show them"
    assert await admin.group_offsets(topic) == {zero: Commit(3, "a map")}
    with pytest.raises(TransportError):
        await admin.set_group_offsets(topic, {zero: Commit(0)})
    await member.consumer.stop()
    await admin.set_group_offsets(topic, {zero: Commit(0)})
    assert await admin.group_offsets(topic) == {zero: Commit(0)}


# holding back


@on_every_protocol
async def test_a_partition_that_is_left_alone_is_bounded_and_loses_nothing(
    join: Join, producer: Producer, topic: str
) -> None:
    hog, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for start in range(0, 3000, 500):
        await producer.send_many([Outgoing(topic, b"%1000d" % n, partition=0) for n in range(start, start + 500)])
    member = await join(topic, topic, max_partition_fetch_bytes=50_000, fetch_max_bytes=100_000)
    for number in range(20):
        await producer.send(Outgoing(topic, b"%d" % number, partition=1))
        await member.until(lambda: len(member.values(other)) == number + 1, only={other})  # noqa: B023
    backlog = member.consumer._pump._backlogs[hog]  # type: ignore[attr-defined]
    assert backlog.size < 2_000_000, "a turn of the pump beyond its share"
    assert backlog.is_paused
    await member.until(lambda: len(member.values(hog)) == 3000)
    assert member.values(hog) == [b"%1000d" % number for number in range(3000)]


# a broker that takes faults


@pytest.fixture
async def broken() -> AsyncIterator[EmbeddedTransport]:
    made = open_transport("embedded://", metadata_timeout=1.0, commit_timeout=2.0, request_timeout=3.0)
    assert isinstance(made, EmbeddedTransport)
    await made.open()
    yield made
    await made.close()


ZERO = TopicPartition("numbers", 0)


async def publish(transport: EmbeddedTransport, *values: bytes) -> None:
    producer = transport.producer()
    await producer.start()
    await producer.send_many([Outgoing("numbers", value) for value in values])
    await producer.stop()


@pytest.fixture
async def single(broken: EmbeddedTransport) -> AsyncIterator[Member]:
    """The only member of a group, with ten records to read."""
    await publish(broken, *[b"%d" % number for number in range(10)])
    member = Member(broken, "group", {"numbers"}, **COOPERATIVE)
    await member.consumer.start(member)
    await member.until(lambda: member.mine)
    yield member
    await member.consumer.stop()


@pytest.mark.parametrize("code", [14, 15, 16])
async def test_a_coordinator_that_is_not_ready_never_means_that_nothing_is_committed(
    broken: EmbeddedTransport, code: int
) -> None:
    await publish(broken, *[b"%d" % number for number in range(100)])
    first = Member(broken, "group", {"numbers"}, **COOPERATIVE)
    await first.consumer.start(first)
    await first.until(lambda: first.mine)
    await first.consumer.commit({ZERO: Commit(40)})
    broken.faults.fail(OFFSET_FETCH, code, code)
    assert await first.consumer.committed({ZERO}) == {ZERO: Commit(40)}
    await first.consumer.stop()
    broken.faults.clear()
    broken.faults.fail(OFFSET_FETCH, *[code] * 3)
    second = Member(broken, "group", {"numbers"}, **COOPERATIVE)
    await second.consumer.start(second)
    await second.until(lambda: second.count == 60)
    assert second.values()[0] == b"40"
    await second.consumer.stop()


@pytest.mark.parametrize(
    ("codes", "error"),
    [((14, 16), None), ((27, 27), None), ((22,), PartitionLost), ((25,), PartitionLost), ((30,), NotAuthorized)],
    ids=["loading", "the next generation begins", "old generation", "unknown member", "not authorized"],
)
async def test_errors_of_a_commit(
    broken: EmbeddedTransport, single: Member, codes: tuple[int, ...], error: type[Exception] | None
) -> None:
    broken.faults.fail(OFFSET_COMMIT, *codes)
    if error is None:
        await single.consumer.commit({ZERO: Commit(5)})
        assert await single.consumer.committed({ZERO}) == {ZERO: Commit(5)}
    else:
        with pytest.raises(error):
            await single.consumer.commit({ZERO: Commit(5)})
        assert await single.consumer.committed({ZERO}) == {ZERO: None}


async def test_a_commit_that_is_not_answered_fails_in_time_and_can_be_repeated(
    broken: EmbeddedTransport, single: Member
) -> None:
    broken.faults.delay(OFFSET_COMMIT, 4.0)
    started = time.monotonic()
    with pytest.raises(ConnectionFailed) as caught:
        await single.consumer.commit({ZERO: Commit(5)})
    assert caught.value.retryable
    assert time.monotonic() - started < 3
    broken.faults.clear()


async def test_a_member_that_the_group_forgot_loses_its_partitions_and_joins_again(
    broken: EmbeddedTransport, single: Member
) -> None:
    broken.faults.fail(HEARTBEAT, 25)
    await single.until(lambda: len(single.changes) >= 3)
    assert [what for what, _ in single.changes] == ["assigned", "lost", "assigned"]


async def test_an_unreadable_batch_stops_its_partition_after_everything_before_it(tmp_path: Path) -> None:
    zero, one = TopicPartition("numbers", 0), TopicPartition("numbers", 1)
    async with (
        TcpProxy("127.0.0.1:1") as proxy,
        EmbeddedBroker(tmp_path / "broker", advertised_port=proxy.port, partitions=2) as broker,
    ):
        proxy.target = broker.address
        transport = open_transport(proxy.address, create_topics=True)
        producer = transport.producer()
        await producer.start()
        for start in range(0, 9, 3):
            await producer.send_many(
                [Outgoing("numbers", b"zero-%d" % n, partition=0) for n in range(start, start + 3)]
            )
        await producer.send_many([Outgoing("numbers", b"one-%d" % n, partition=1) for n in range(20)])
        await producer.stop()
        proxy.transform = lambda _, chunk: chunk.replace(b"zero-4", b"zero-X")
        member = Member(transport, "group", {"numbers"}, **COOPERATIVE)
        await member.consumer.start(member)
        await member.until(lambda: member.count >= 23 and zero in member.unreadable)
        assert member.values(zero) == [b"zero-0", b"zero-1", b"zero-2"]
        assert len(member.values(one)) == 20
        error = member.unreadable[zero].error
        assert isinstance(error, CorruptBatch)
        assert "numbers[0]@3" in str(error)
        proxy.heal()
        await member.until(lambda: len(member.values(zero)) == 9)
        assert member.values(zero) == [b"zero-%d" % number for number in range(9)]
        await member.consumer.stop()


async def test_a_broker_that_restarts_is_read_on(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        transport = open_transport(broker.address, create_topics=True)
        producer = transport.producer()
        await producer.start()
        member = Member(transport, "group", {"numbers"}, **COOPERATIVE)
        await producer.send(Outgoing("numbers", b"before"))
        await member.consumer.start(member)
        await member.until(lambda: member.count == 1)
        await member.consumer.commit({ZERO: Commit(1)})
        await broker.restart()  # which forgets the group's members
        await producer.send(Outgoing("numbers", b"after"))
        await member.until(lambda: member.count == 2)
        await member.consumer.commit({ZERO: Commit(2, "a map")})
        assert await member.consumer.committed({ZERO}) == {ZERO: Commit(2, "a map")}
        assert member.values() == [b"before", b"after"]
        await member.consumer.stop()
        await producer.stop()


# tokens


def bearer(broker: SaslBroker, provider: Any) -> Member:
    transport = open_transport(
        broker.address, security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", token_provider=provider
    )
    return Member(transport, "group", {"topic"}, **COOPERATIVE)


async def test_a_refused_token_is_an_error_at_once_with_the_brokers_reason() -> None:
    async with SaslBroker() as broker:
        member = bearer(broker, Tokens("bad"))
        with pytest.raises(NotAuthorized, match="invalid_token"):
            await member.consumer.start(member)


async def test_an_error_of_the_token_provider_comes_through_as_itself() -> None:
    error = LoginRequired("Run `octopus login`.")
    async with SaslBroker() as broker:
        member = bearer(broker, Tokens(error))
        with pytest.raises(LoginRequired) as caught:
            await member.consumer.start(member)
    assert caught.value is error


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "\x01auth=Bearer other"])
async def test_a_malformed_token_is_never_sent(token: str) -> None:
    async with SaslBroker() as broker:
        member = bearer(broker, Tokens(token))
        with pytest.raises(NotAuthorized, match="token"):
            await member.consumer.start(member)
        assert broker.seen == []


async def test_nobody_at_the_address_is_a_connection_that_failed() -> None:
    transport = open_transport("127.0.0.1:1", request_timeout=5.0)
    member = Member(transport, "group", {"numbers"}, **COOPERATIVE)
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        await member.consumer.start(member)
    assert time.monotonic() - started < 5
    await member.consumer.stop()


async def test_the_death_of_the_pump_surfaces_from_fetch(single: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_turn(self: pump.Pump) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(pump.Pump, "_turn", broken_turn)
    with pytest.raises(LookupError, match="a defect"):
        await single.until(lambda: False)
