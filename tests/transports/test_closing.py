"""A client that is closed leaves no connection open and raises nothing, whatever it was about."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from octopus.config import TopicSettings
from octopus.logs import ENGINE
from octopus.testing.faults.embedded_broker import EmbeddedBroker
from octopus.transports.base import Outgoing
from octopus.transports.kafka.clients import Client
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.opening import open_transport
from octopus.transports.topic_creation import TopicCreatingProducer


class Node(NamedTuple):
    """A broker, as metadata has it."""

    host: str
    port: str


class Gate:
    """Passes connections on to a broker; answers wait while it is shut."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.connected = self.requests = 0
        self.answers = 1_000_000

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client ends it."""
        host, _, port = self._broker.rpartition(":")
        behind, before = await asyncio.open_connection(host, int(port))
        self.connected += 1

        async def answer() -> None:
            while data := await behind.read(65536):
                await self.open.wait()
                if self.answers > 0:
                    self.answers -= 1
                    writer.write(data)

        answering = asyncio.create_task(answer())
        try:
            while data := await reader.read(65536):
                before.write(data)
                self.asked.set()
                self.requests += 1
        finally:
            self.connected -= 1
            answering.cancel()
            before.close()
            writer.close()


@pytest.fixture
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gate, str]]:
    async with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        gate = Gate(broker.address)
        server = await asyncio.start_server(gate.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield gate, f"127.0.0.1:{port}"
        finally:
            gate.open.set()
            server.close()


async def until_nothing_is_connected(gate: Gate) -> None:
    async with asyncio.timeout(10):
        while gate.connected:
            await asyncio.sleep(0.01)


async def test_a_connection_that_is_being_made_while_the_client_closes_is_closed(gate: tuple[Gate, str]) -> None:
    way, address = gate
    client = Client(**KafkaSettings(brokers=address).client_options())
    await client.bootstrap()
    client.cluster.broker_metadata = lambda _: Node(*address.split(":"))
    way.open.clear()
    way.asked.clear()
    connecting = asyncio.create_task(client.ready("a node"))
    await way.asked.wait()
    await client.close()
    way.open.set()
    assert await connecting is False
    await until_nothing_is_connected(way)


@pytest.mark.parametrize("answered", [0, 1], ids=["in the handshake", "asked for metadata"])
async def test_a_start_that_is_cancelled_leaves_no_connection_behind(gate: tuple[Gate, str], answered: int) -> None:
    way, address = gate
    client = Client(**KafkaSettings(brokers=address).client_options())
    way.answers = answered
    starting = asyncio.create_task(client.bootstrap())
    while way.requests <= answered:
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await client.close()
    await until_nothing_is_connected(way)


async def test_a_producer_that_closes_while_a_batch_waits_to_be_sent_again_ends_in_good_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedBroker(tmp_path) as broker:
        transport = open_transport(broker.address)
        producer = TopicCreatingProducer(transport, TopicSettings())
        await producer.start()
        await producer.send(Outgoing("t", b"stored"))
        caplog.set_level(logging.WARNING, ENGINE)
        broker.kill()
        caplog.clear()
        given_up = producer.queue([Outgoing("t", b"not stored")])
        async with asyncio.timeout(60):
            while "Got error produce response" not in caplog.text:
                await asyncio.sleep(0.001)
        given_up.cancel()
        await producer.stop()
        await transport.close()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
