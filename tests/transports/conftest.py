"""The transports under one roof: every test that takes `transport` runs on each of them."""

import contextlib
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octopus.broker.lock import owner_of
from octopus.transports.base import Admin, Producer, Transport
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.opening import open_transport

from .engines import KAFKA, TRANSPORTS, OtherEngine
from .members import Member

Join = Callable[..., Awaitable[Member]]


@pytest.fixture(params=TRANSPORTS)
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    """A transport whose topics must be created."""
    made = _made(request)
    await made.open()
    yield made
    await made.close()


@pytest.fixture(params=["embedded", KAFKA])
async def wire_transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    """A transport that speaks the Kafka protocol."""
    made = _made(request)
    await made.open()
    yield made
    await made.close()


def _made(request: pytest.FixtureRequest) -> Transport:
    patience: dict[str, Any] = {"metadata_timeout": 0.5, "metadata_max_age": 0.5}
    broker, _, engine = request.param.partition(" librdkafka ")
    match broker:
        case "memory":
            return MemoryTransport(MemoryBroker(auto_create=0))
        case "embedded":
            made = open_transport("embedded://", create_topics=False, **patience)
        case _:
            patience["metadata_timeout"] = 2.0  # all tests of a run share it, and may keep it busy
            made = open_transport(request.getfixturevalue("kafka_cluster"), **patience)
    return OtherEngine(made, engine) if engine else made


@pytest.fixture
async def admin(transport: Transport) -> AsyncIterator[Admin]:
    """A started admin client."""
    made = transport.admin()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def producer(transport: Transport) -> AsyncIterator[Producer]:
    """A started producer."""
    made = transport.producer()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def fresh() -> str:
    """A name that no other test uses."""
    return f"test-{uuid.uuid4().hex[:10]}"


@pytest.fixture
async def topic(admin: Admin, fresh: str) -> str:
    """A topic with three partitions."""
    await admin.create_topic(fresh, partitions=3)
    return fresh


@pytest.fixture
async def join(transport: Transport) -> AsyncIterator[Join]:
    """Starts group members, and stops them in the end."""
    members: list[Member] = []

    async def started(group: str, topics: Any, *, wait: bool = True, **options: Any) -> Member:
        member = Member(transport, group, {topics} if isinstance(topics, str) else topics, **options)
        await member.consumer.start(member)
        members.append(member)
        if wait:
            await member.until(lambda: member.mine)
        return member

    yield started
    for member in members:
        await member.consumer.stop()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A data directory; a broker process that is left over there is ended."""
    yield tmp_path / "data"
    owner = owner_of(tmp_path / "data")
    if owner.lives and owner.pid is not None and owner.pid != os.getpid():
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGTERM)
