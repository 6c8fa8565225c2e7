"""The tools themselves: proxy, processes, broker."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from octopus.errors import TransportError
from octopus.testing.faults import ChildProcess, EmbeddedBroker, TcpProxy
from octopus.transports.base import Outgoing
from octopus.transports.kafka import KafkaSettings, KafkaTransport


@pytest.fixture
async def echo() -> AsyncIterator[TcpProxy]:
    """A proxy before a server that says what it hears."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with TcpProxy(f"127.0.0.1:{port}") as proxy:
        yield proxy
    server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await self.hear(len(text))

    async def hear(self, size: int, timeout: float = 30.0) -> bytes:
        async with asyncio.timeout(timeout):
            return await self.reader.readexactly(size)


@contextlib.asynccontextmanager
async def connected(proxy: TcpProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_a_proxy_passes_everything_on(echo: TcpProxy) -> None:
    async with connected(echo) as client:
        text = bytes(range(256)) * 5000
        assert await client.ask(text) == text
        assert echo.connections == 1


async def test_a_delay_is_paid_each_way_and_costs_no_throughput(echo: TcpProxy) -> None:
    async with connected(echo) as client:
        echo.delay = 0.4
        began = time.monotonic()
        for number in range(50):
            client.writer.write(b"%d" % (number % 10))
            await asyncio.sleep(0.01)
        assert await client.hear(50) == b"0123456789" * 5
        assert 0.8 <= time.monotonic() - began < 15, "one after the other they would take 20 s each way"


async def test_a_rate_is_kept(echo: TcpProxy) -> None:
    async with connected(echo) as client:
        echo.rate = 100_000
        began = time.monotonic()
        for _ in range(3):
            await client.ask(b"x" * 10_000)
        assert time.monotonic() - began > 0.3


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_what_is_cut_arrives_when_the_network_heals(direction: str, echo: TcpProxy) -> None:
    async with connected(echo) as client:
        await client.ask(b"before")
        echo.cut(direction)  # type: ignore[arg-type]
        client.writer.write(b"during")
        with pytest.raises(TimeoutError):
            await client.hear(1, timeout=0.2)
        echo.heal()
        assert await client.hear(6) == b"during"


async def test_a_reset_ends_connections_and_new_ones_are_taken(echo: TcpProxy) -> None:
    async with connected(echo) as client:
        await client.ask(b"before")
        echo.reset()
        with pytest.raises(ConnectionResetError):
            await client.hear(1)
        async with connected(echo) as another:
            assert await another.ask(b"after") == b"after"


async def test_a_proxy_refuses_when_told(echo: TcpProxy) -> None:
    echo.refusing = True
    async with connected(echo) as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.hear(1)


async def test_a_transformation_corrupts_one_way(echo: TcpProxy) -> None:
    async with connected(echo) as client:
        echo.transform = lambda direction, data: data.upper() if direction == "to_client" else data
        assert await client.ask(b"quiet") == b"QUIET"


async def test_a_proxy_before_nobody_ends_the_connection() -> None:
    async with TcpProxy("127.0.0.1:1") as proxy, connected(proxy) as client:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.hear(1)


@pytest.mark.process
async def test_a_process_freezes_thaws_and_dies(tmp_path: Path) -> None:
    program = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.01)"

    async def grown(from_size: int) -> None:
        async with asyncio.timeout(60):
            while len(child.written()) <= from_size:
                await asyncio.sleep(0.02)

    with ChildProcess([sys.executable, "-c", program], log=tmp_path / "log") as child:
        await grown(0)
        child.freeze()
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        size = len(child.written())
        await asyncio.sleep(0.2)
        assert len(child.written()) == size
        assert child.is_running
        child.thaw()
        await grown(size)
    assert child.exit_code == -signal.SIGKILL
    assert await child.ended(60) == -signal.SIGKILL


@pytest.mark.process
async def test_a_process_may_end_with_whoever_started_it() -> None:
    program = "from octopus.testing.faults import end_with_parent; import time; end_with_parent(); time.sleep(60)"
    with ChildProcess([sys.executable, "-c", program]) as child:
        child._process.stdin.close()  # what the kernel does when we are killed
        assert await child.ended(10) == 1


@pytest.mark.process
async def test_a_broker_keeps_its_address_and_its_data_over_a_kill_and_forgets_on_demand(tmp_path: Path) -> None:
    async def publish(value: bytes) -> int:
        producer = KafkaTransport(KafkaSettings(brokers=broker.address, create_topics=True)).producer()
        await producer.start()
        try:
            return (await producer.send(Outgoing("t", value, partition=0))).offset
        finally:
            await producer.stop()

    async with EmbeddedBroker(tmp_path / "broker") as broker:
        assert await publish(b"0") == 0
        await broker.restart()
        assert await publish(b"1") == 1
        broker.kill()
        with pytest.raises(TransportError):
            await publish(b"nobody")
        then = broker.remember()
        await broker.start()
        assert await publish(b"2") == 2
        await broker.forget_since(then)
        assert await publish(b"3") == 2
