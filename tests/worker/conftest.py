"""Virtual time for workers on the in-process broker, and brokers for those that need a real one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from octopus.testing import VirtualTime
from octopus.transports.embedded import EmbeddedTransport


@pytest.fixture
async def virtual_time() -> AsyncIterator[VirtualTime]:
    """Let time pass at once whenever nothing else can happen."""
    loop = asyncio.get_running_loop()
    with VirtualTime(loop.time()).installed(loop) as clock:
        yield clock


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedTransport]:
    """An embedded broker in this process, which takes faults on order."""
    transport = EmbeddedTransport(mode="thread")
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])])
def either(request: pytest.FixtureRequest) -> str:
    """The address of the embedded broker, and of Apache Kafka. Fresh names, please."""
    if request.param == "kafka":
        address: str = request.getfixturevalue("kafka_cluster")
        return address
    embedded: EmbeddedTransport = request.getfixturevalue("embedded")
    return embedded.address
