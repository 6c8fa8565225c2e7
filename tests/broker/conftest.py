"""A broker in memory, on the test's own loop, and directories for its storage."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiokafka.record.util import calc_crc32c

from octopus.broker.server import Broker
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.storage import Storage
from octopus.transports.broker_codecs import codecs
from tests.broker.storage_builders import TEMPORARY
from tests.broker.wire_client import Start, WireClient, connected


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """An empty directory, in memory where the system offers that: these tests sync thousands of times."""
    with tempfile.TemporaryDirectory(dir=TEMPORARY) as directory:
        yield Path(directory)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start brokers with settings of the test's choice."""
    async with AsyncExitStack() as stack:

        async def start(topic_defaults: Mapping[str, str] | None = None, **settings: object) -> Broker:
            kept = StorageSettings(topic_defaults=topic_defaults or {})
            storage = Storage.open(None, kept, checksum=calc_crc32c, codecs=codecs())
            return await stack.enter_async_context(Broker(storage, BrokerSettings(**settings)))

        yield start


@pytest.fixture
async def broker(start: Start) -> Broker:
    return await start()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def either(request: pytest.FixtureRequest, start: Start) -> str:
    """The address of the embedded broker, and of Apache Kafka: what is asked is answered alike. Fresh names, please."""
    is_kafka = request.param == "kafka"
    return request.getfixturevalue("kafka_cluster") if is_kafka else (await start(auto_create=False)).address


@pytest.fixture
async def peer(either: str) -> AsyncIterator[WireClient]:
    """A client of either broker."""
    async with connected(either) as client:
        yield client


@pytest.fixture
async def other(either: str) -> AsyncIterator[WireClient]:
    """Another client of it."""
    async with connected(either) as client:
        yield client


@pytest.fixture
async def client(broker: Broker) -> AsyncIterator[WireClient]:
    client = await WireClient.connect(broker.address)
    yield client
    await client.close()
