"""Brokers for operations: in memory, and the embedded one in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from octopus import config
from octopus.broker.thread import BrokerThread
from octopus.config import Settings
from octopus.events import Published
from octopus.transports.base import Admin, Outgoing, Transport
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.opening import administering, open_transport, producing
from tests.cli.conftest import nowhere, write_app
from tests.transports.conftest import fresh

__all__ = ["fresh", "nowhere", "write_app"]

Publish = Callable[..., Awaitable[list[Published]]]


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """The address of an embedded broker in this process, for the whole run: fresh topic names, please."""
    with BrokerThread() as thread:
        yield thread.address


@pytest.fixture(params=["memory", "embedded"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    """A transport that is open."""
    made: Transport
    if request.param == "memory":
        made = MemoryTransport(MemoryBroker(auto_create=0))
    else:
        made = open_transport(request.getfixturevalue("embedded"), create_topics=False)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def admin(transport: Transport) -> AsyncIterator[Admin]:
    """A started admin client."""
    async with administering(transport) as made:
        yield made


@pytest.fixture
def settings() -> Settings:
    """The defaults, with topics of one partition."""
    return config.load({"topics": {"partitions": 1}})


@pytest.fixture
def publish(transport: Transport, settings: Settings) -> Publish:
    """Publishes values to a topic, with more of a message where that is given."""

    async def send(topic: str, *values: bytes | None, **more: object) -> list[Published]:
        async with producing(transport, settings) as producer:
            return await producer.send_many([Outgoing(topic, value, **more) for value in values])  # type: ignore[arg-type]

    return send
