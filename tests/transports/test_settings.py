"""What is said about a cluster becomes what aiokafka is told, and what makes no sense is refused with a hint."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from octopus.config import Settings
from octopus.errors import ConfigurationError, TopicNotFound
from octopus.transports.base import Outgoing
from octopus.transports.kafka.settings import KafkaSettings, kafka_settings
from octopus.transports.opening import connect, open_transport


class Token:
    async def token(self) -> str:
        return "token"


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"security_protocol": "SSL"}, "SSL"),
        ({"ca_file": "ca.pem"}, "SSL"),
        ({"ssl_context": object()}, "SSL"),
        ({"sasl_mechanism": "PLAIN"}, "SASL_PLAINTEXT"),
        ({"sasl_mechanism": "SCRAM-SHA-256", "ca_file": "ca.pem"}, "SASL_SSL"),
        ({"sasl_mechanism": "OAUTHBEARER"}, "SASL_SSL"),
        ({"sasl_mechanism": "OAUTHBEARER", "security_protocol": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT"),
    ],
    ids=["nothing", "given", "authority", "context", "password", "password and authority", "token", "token, insisted"],
)
def test_the_protocol_follows_from_the_other_settings_and_tokens_travel_encrypted(
    given: dict[str, Any], protocol: str
) -> None:
    settings = KafkaSettings(brokers="h:1", **given)
    assert settings.protocol == protocol
    assert protocol in repr(settings)


def test_a_password_reaches_the_client_and_no_log() -> None:
    settings = KafkaSettings(brokers="h:1", sasl_mechanism="PLAIN", username="ada", password="secret")
    options = settings.client_options()
    assert (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"]) == (
        "PLAIN",
        "ada",
        "secret",
    )
    assert "secret" not in repr(options) + repr(settings)


@pytest.mark.parametrize(
    ("given", "mechanism"),
    [
        ({"token_provider": Token()}, "OAUTHBEARER"),
        ({"username": "ada", "password": "secret"}, "PLAIN"),
        ({"username": "ada", "password": "secret", "sasl_mechanism": "SCRAM-SHA-512"}, "SCRAM-SHA-512"),
    ],
    ids=["token", "password", "named"],
)
def test_the_mechanism_follows_from_the_credentials(given: dict[str, Any], mechanism: str) -> None:
    options = KafkaSettings(brokers="h:1", security_protocol="SASL_PLAINTEXT", **given).client_options()
    assert options["sasl_mechanism"] == mechanism


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sasl_mechanism": "OAUTHBEARER"}, "token provider"),
        ({"sasl_mechanism": "PLAIN", "username": "ada"}, "password"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "username"),
        ({"ca_file": "/no/such.pem"}, r"/no/such\.pem"),
    ],
    ids=["no token", "no password", "no credential", "no file"],
)
def test_a_credential_that_is_missing_is_named_before_anything_connects(given: dict[str, Any], message: str) -> None:
    settings = KafkaSettings(brokers="h:1", **given)
    with pytest.raises(ConfigurationError, match=message):
        settings.client_options()


def test_a_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_text("not a certificate")
    settings = KafkaSettings(brokers="h:1", certificate_file=str(tmp_path / "own.pem"))
    with pytest.raises(ConfigurationError, match=r"own\.pem"):
        settings.client_options()


def test_encryption_checks_the_name_of_the_broker_unless_a_context_says_otherwise() -> None:
    made = KafkaSettings(brokers="h:1", security_protocol="SSL").client_options()["ssl_context"]
    assert (made.check_hostname, made.verify_mode) == (True, ssl.CERT_REQUIRED)
    own = ssl.create_default_context()
    assert KafkaSettings(brokers="h:1", ssl_context=own).client_options()["ssl_context"] is own


@pytest.mark.parametrize(
    ("brokers", "given", "message"),
    [
        ("h:1", {"usrname": "ada"}, "'usrname'.*'username'"),
        ("h:1", {"xyz": 1}, r"'xyz'\.$"),
        ("h:1", {"brokers": "h:2"}, "'brokers'"),
        ("h:1", {"security_protocol": "TLS"}, "TLS.*SASL_SSL"),
        ("h:1", {"sasl_mechanism": "GSSAPI"}, "GSSAPI.*SCRAM-SHA-512"),
        ("h:1", {"request_timeout": "soon"}, "cannot be used"),
        ("h:port", {}, "'h:port'"),
        ("h:0", {}, "'h:0'"),
        ("h:70000", {}, "'h:70000'"),
        ("h:1,", {}, "host:port"),
    ],
    ids=[
        "misspelt",
        "unknown",
        "given twice",
        "protocol",
        "mechanism",
        "text for a number",
        "name for a port",
        "zero",
        "too high",
        "empty",
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_what_could_be(
    brokers: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kafka_settings(brokers, given)


@pytest.mark.parametrize("brokers", ["h", "h:9092", "[::1]:9092", "[::1]", "a:1, b:2"])
def test_addresses_may_leave_out_the_port(brokers: str) -> None:
    assert kafka_settings(brokers, {"request_timeout": "5"}).request_timeout == 5.0


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("kafak://h:1", "kafka://h:1"),
        ("amqp://h:1", "memory, embedded, kafka"),
        ("embedded://?colour=red", "colour"),
        ("kafka://h:1?colour=red", "colour"),
    ],
)
def test_an_address_that_cannot_be_opened_is_refused_with_a_hint(address: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_transport(address)


@pytest.mark.parametrize(
    ("brokers", "name"), [("", "embedded"), ("memory://x", "memory"), ("kafka://h:1", "kafka"), ("h:1", "kafka")]
)
def test_the_brokers_choose_the_transport(brokers: str, name: str) -> None:
    settings = Settings(brokers=(brokers,) if brokers else ())
    assert connect(settings).name == name


async def test_an_embedded_broker_takes_the_settings_of_its_clients_as_text() -> None:
    transport = open_transport("embedded://?metadata_timeout=0.5&create_topics=false")
    await transport.open()
    try:
        producer = transport.producer()
        await producer.start()
        with pytest.raises(TopicNotFound):
            await producer.send(Outgoing("unknown", b"x"))
        await producer.stop()
    finally:
        await transport.close()
