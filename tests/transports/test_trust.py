"""A consumer on librdkafka ends when its broker is not to be trusted, and not when a handshake was cut off."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from octopus.errors import NotAuthorized
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka.trust import DOUBTS, Trust
from octopus.transports.opening import open_transport
from tests.support.kafka_security import make_certificate

from .members import Member


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("another"))


@contextlib.asynccontextmanager
async def listening(certificate: Path | None) -> AsyncIterator[str]:
    """A server that hangs up after the handshake, or at once without a certificate; yields its address."""
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.with_name("server.pem"))
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_authority_that_is_unknown_is_refused_by_the_engine_that_has_a_tls_of_its_own(
    certificate: Path, another: Path
) -> None:
    async with listening(certificate) as address:
        transport = open_transport(address, security_protocol="SSL", ca_file=str(another))
        member = Member(transport, "group", {"topic"}, engine="librdkafka")
        with pytest.raises(NotAuthorized, match="ca_file"):
            await member.consumer.start(member)
        await member.consumer.stop()


async def looked(address: str, ca_file: Path, times: int) -> list[BaseException]:
    """What ended a consumer whose engine said so many times that a handshake failed."""
    failed: list[BaseException] = []
    trust = Trust(KafkaSettings(brokers=address, security_protocol="SSL", ca_file=str(ca_file)), failed.append)
    for _ in range(times):
        look = trust.look(asyncio.get_running_loop(), KafkaError(KafkaError._SSL, "in whatever words"))
        await asyncio.wrap_future(look)
    return failed


async def test_a_certificate_of_an_unknown_authority_ends_it_at_once_whatever_the_words(
    certificate: Path, another: Path
) -> None:
    async with listening(certificate) as address:
        (failure,) = await looked(address, another, 1)
    assert isinstance(failure, NotAuthorized)
    assert "ca_file" in str(failure)


async def test_handshakes_that_are_cut_off_or_not_answered_do_not_end_it(certificate: Path) -> None:
    async with listening(None) as address:
        assert await looked(address, certificate, 10) == []
    assert await looked(address, certificate, 10) == [], "nobody listens there any more"


async def test_a_broker_that_only_the_engine_does_not_trust_ends_it_after_a_few_attempts(certificate: Path) -> None:
    async with listening(certificate) as address:
        assert await looked(address, certificate, DOUBTS - 1) == []
        (failure,) = await looked(address, certificate, DOUBTS)
    assert isinstance(failure, NotAuthorized)
    assert "in whatever words" in str(failure)
