"""Sessions are renewed before they end, refusals say so at once, and secrets stay out of logs and messages."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from octopus.errors import ConfigurationError, ConnectionFailed, LoginRequired, NotAuthorized, OctopusError
from octopus.logs import ENGINE
from octopus.transports.base import Outgoing, Producer, Transport
from octopus.transports.kafka import KafkaTransport
from octopus.transports.opening import open_transport
from tests.support.kafka_cluster import KafkaCluster

from .members import Member
from .sasl_broker import SaslBroker


class Tokens:
    """A provider that gives what it is told to."""

    def __init__(self, value: str | OctopusError = "good") -> None:
        self.value = value

    async def token(self) -> str:
        if isinstance(self.value, OctopusError):
            raise self.value
        return self.value


def transport_to(broker: SaslBroker, tokens: Tokens) -> Transport:
    return open_transport(
        broker.address, security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", token_provider=tokens
    )


async def send_for_ever(producer: Producer) -> None:
    """Send until that fails; not for ever, in a test."""
    async with asyncio.timeout(30):
        while True:
            await producer.send(Outgoing("topic", b"x"))
            await asyncio.sleep(0.02)


@pytest.fixture
async def broker() -> AsyncIterator[SaslBroker]:
    async with SaslBroker() as made:
        yield made


async def test_sessions_are_renewed_before_the_broker_ends_them(broker: SaslBroker) -> None:
    broker.session = 0.6
    producer = transport_to(broker, Tokens()).producer()
    await producer.start()
    slowest, started = 0.0, time.monotonic()
    while time.monotonic() - started < 2.0:
        sent = time.monotonic()
        await asyncio.gather(*(producer.send(Outgoing("topic", b"x")) for _ in range(5)))
        slowest = max(slowest, time.monotonic() - sent)
    await producer.stop()
    assert broker.kills == 0
    assert len(broker.seen) >= 5, "each connection authenticated once and again every half second"
    assert slowest < 0.3


async def test_a_refused_token_is_an_error_at_once_with_the_brokers_reason(broker: SaslBroker) -> None:
    transport = transport_to(broker, Tokens("bad"))
    for part in (transport.producer(), transport.admin()):
        started = time.monotonic()
        with pytest.raises(NotAuthorized, match="invalid_token"):
            await part.start()
        assert time.monotonic() - started < 2
    with pytest.raises(NotAuthorized, match="invalid_token"):
        await transport.open()


@pytest.mark.parametrize("lost", [0, 1], ids=["between two messages", "with a message on its way"])
async def test_a_token_that_is_refused_in_mid_life_stops_publishing_until_a_better_one_comes(
    broker: SaslBroker, lost: int
) -> None:
    broker.session = 0.3
    tokens = Tokens()
    producer = transport_to(broker, tokens).producer(delivery_timeout=2.0)
    await producer.start()
    await producer.send(Outgoing("topic", b"x"))
    tokens.value, broker.lost = "bad", lost
    with pytest.raises(NotAuthorized, match="invalid_token"):
        await send_for_ever(producer)
    tokens.value = "good"
    await producer.send(Outgoing("topic", b"x"))
    await producer.stop()


async def test_a_better_token_is_taken_though_the_refusal_of_the_old_one_is_still_on_its_way(
    broker: SaslBroker,
) -> None:
    broker.session = 0.3
    tokens = Tokens()
    producer = transport_to(broker, tokens).producer(delivery_timeout=2.0)
    await producer.start()
    await producer.send(Outgoing("topic", b"x"))
    tokens.value = "bad"
    with pytest.raises(NotAuthorized, match="invalid_token"):
        await send_for_ever(producer)
    seen = len(broker.seen)
    update = producer.engine.current.client.force_metadata_update()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        while len(broker.seen) == seen:
            await asyncio.sleep(0)
    tokens.value = "good"
    assert not update.done()
    await producer.send(Outgoing("topic", b"x"))
    await producer.stop()


async def test_an_error_of_the_token_provider_comes_through_as_itself(broker: SaslBroker) -> None:
    error = LoginRequired("Run `octopus login`.")
    producer = transport_to(broker, Tokens(error)).producer()
    with pytest.raises(LoginRequired) as caught:
        await producer.start()
    assert caught.value is error


@pytest.mark.parametrize("token", ["", "with space", "a,b", "line\nbreak", "\x01auth=Bearer other"])
async def test_a_malformed_token_is_never_sent(broker: SaslBroker, token: str) -> None:
    with pytest.raises(NotAuthorized, match="token"):
        await transport_to(broker, Tokens(token)).admin().start()
    assert broker.seen == []


async def test_tokens_do_not_reach_the_logs(broker: SaslBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, ENGINE)
    broker.accepted.add("very-secret-token")
    producer = transport_to(broker, Tokens("very-secret-token")).producer()
    await producer.start()
    await producer.send(Outgoing("topic", b"x"))
    await producer.stop()
    assert broker.seen
    assert ENGINE in {each.name for each in caplog.records}
    assert "very-secret-token" not in caplog.text


def test_settings_that_cannot_work_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'sasl_mechanism'"):
        open_transport("host:1", sasl_mechanisms="PLAIN")
    with pytest.raises(ConfigurationError, match="must be one of PLAIN"):
        open_transport("host:1", sasl_mechanism="GSSAPI")
    with pytest.raises(ConfigurationError, match="host:port"):
        open_transport("host:port")
    with pytest.raises(ConfigurationError, match="Did you mean kafka://"):
        open_transport("kakfa://host:1")
    with pytest.raises(ConfigurationError, match="password"):
        open_transport("host:1", sasl_mechanism="PLAIN", username="alice").producer()._settings.client_options()  # type: ignore[attr-defined]


def test_a_password_is_not_printed() -> None:
    transport = open_transport("host:1", sasl_mechanism="PLAIN", username="alice", password="hunter2")
    assert isinstance(transport, KafkaTransport)
    assert "hunter2" not in repr(transport.settings)
    assert "hunter2" not in repr(transport.settings.client_options())


def test_a_bearer_token_travels_encrypted_unless_told_otherwise() -> None:
    transport = open_transport("host:1", sasl_mechanism="OAUTHBEARER", token_provider=Tokens())
    assert isinstance(transport, KafkaTransport)
    assert transport.settings.protocol == "SASL_SSL"


# genuine Apache Kafka, sessions of two seconds


@pytest.fixture(scope="module")
def secured() -> Iterator[KafkaCluster]:
    """Apache Kafka with TLS, every mechanism, and a session time of two seconds."""
    with KafkaCluster(secure="sasl+tls", properties={"connections.max.reauth.ms": "2000"}) as cluster:
        yield cluster


class SignedTokens:
    """Tokens as the cluster takes them."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster

    async def token(self) -> str:
        return await asyncio.to_thread(self._cluster.token, "alice", 60.0)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["aiokafka", "librdkafka"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_every_mechanism_outlives_its_sessions_on_apache_kafka(
    secured: KafkaCluster,
    mechanism: str,
    engine: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("octopus.transports.librdkafka.pump.TOKEN_LIFE", 2.0)
    caplog.set_level(logging.WARNING, "aiokafka")
    who = (
        {"token_provider": SignedTokens(secured)}
        if mechanism == "OAUTHBEARER"
        else {"username": "alice", "password": "alice-secret"}
    )
    transport = open_transport(secured.bootstrap, ca_file=str(secured.certificate), sasl_mechanism=mechanism, **who)
    topic = f"topic-{mechanism.lower()}-{engine}"
    admin, producer = transport.admin(), transport.producer()
    await admin.start()
    await admin.create_topic(topic)
    await producer.start()
    member = Member(transport, topic, {topic}, engine=engine)
    await member.consumer.start(member)
    sent, started = 0, time.monotonic()
    while time.monotonic() - started < 4.5:
        await producer.send(Outgoing(topic, b"%d" % sent))
        sent += 1
        await member.turn(timeout=0.02)
    await member.until(lambda: member.count == sent)
    assert member.values() == [b"%d" % number for number in range(sent)]
    await member.consumer.stop()
    await producer.stop()
    await admin.stop()
    cut_off = [record.message for record in caplog.records if record.name == "aiokafka.conn"]
    assert [message for message in cut_off if "clear" not in message] == []


@pytest.mark.kafka
@pytest.mark.slow
async def test_wrong_credentials_and_unknown_authorities_are_refused_at_once(
    secured: KafkaCluster, tmp_path: Path
) -> None:
    ca = str(secured.certificate)
    refused = [
        open_transport(secured.bootstrap, ca_file=ca, sasl_mechanism="PLAIN", username="alice", password="wrong"),
        open_transport(
            secured.bootstrap, ca_file=ca, sasl_mechanism="SCRAM-SHA-256", username="alice", password="wrong"
        ),
        open_transport(secured.bootstrap, ca_file=ca, sasl_mechanism="OAUTHBEARER", token_provider=Tokens("a.b.c")),
        open_transport(
            secured.bootstrap,
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            username="alice",
            password="alice-secret",
        ),
    ]
    for transport in refused:
        started = time.monotonic()
        with pytest.raises(NotAuthorized):
            await transport.open()
        member = Member(transport, "group", {"topic"}, engine="librdkafka")
        with pytest.raises(NotAuthorized):
            await member.consumer.start(member)
        assert time.monotonic() - started < 5
    with pytest.raises((ConnectionFailed, NotAuthorized)):
        await open_transport(secured.bootstrap, request_timeout=2.0).open()
