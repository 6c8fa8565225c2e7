"""Health endpoints, asked over real sockets."""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

from octopus import Octopus, config
from octopus.errors import ConnectionFailed, CorruptBatch, NotAuthorized, TransportError
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.worker import Worker, WorkerStatus
from octopus.worker.endpoints import CONNECTIONS, REQUEST_BYTES
from octopus.worker.health import health_endpoints
from tests.staged import P0, committed, publish, until


class Probe:
    """Asks the endpoints of one worker."""

    def __init__(self, worker: Worker, port: int) -> None:
        self.worker = worker
        self.port = port

    async def send(self, request: bytes) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 8)
        except ConnectionResetError:  # turned away before the request was read
            answer = b""
        finally:
            writer.close()
        if not answer:
            return 0, ""
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
        return int(head.split(b" ", 2)[1]), body.decode()

    async def get(self, path: str) -> tuple[int, str]:
        return await self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def becomes(self, path: str, code: int) -> str:
        """Wait for an answer with this code."""
        async with asyncio.timeout(8):
            while True:
                found, body = await self.get(path)
                if found == code:
                    return body
                await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def probing(
    app: Octopus, broker: MemoryBroker, transport: MemoryTransport | None = None, **worker: Any
) -> AsyncIterator[Probe]:
    port = free_port()
    given = {"topics": {"partitions": 1}, "worker": {"health_port": port, "commit_interval": 0.05, **worker}}
    settings = config.load(config.merge(app.settings, given))
    async with Worker(app, settings, transport=transport or MemoryTransport(broker)) as running:
        companion = asyncio.ensure_future(health_endpoints(settings.worker)(running))
        probe = Probe(running, port)
        try:
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(OSError):
                        await probe.get("/live")
                        break
                    await asyncio.sleep(0.01)
            yield probe
        finally:
            companion.cancel()
            await asyncio.gather(companion, return_exceptions=True)


def handling_app(**options: Any) -> Octopus:
    app = Octopus("app")

    @app.on("t", **options)
    async def handle(value: int) -> None:
        if value < 0:
            raise ValueError("it is negative")

    return app


async def test_a_worker_that_works_is_live_and_ready_and_says_what_it_does() -> None:
    broker = MemoryBroker()
    publish(broker, 1, 2, 3)
    async with probing(handling_app(), broker) as probe:
        assert await probe.becomes("/ready", 200) == "ok\n"
        assert await probe.get("/live?verbose=1") == (200, "ok\n")
        await until(lambda: committed(broker, "app.handle") == 3)
        code, body = await probe.get("/status")
        status = msgspec.json.decode(body, type=WorkerStatus)
        assert (code, status.app, status.groups[0].settled) == (200, "app", 3)
        assert status.groups[0].partitions == (P0,)
    with pytest.raises(ConnectionRefusedError):
        await probe.get("/live")


async def test_a_stopped_group_is_not_ready_at_once_and_not_live_after_the_stall_timeout() -> None:
    broker = MemoryBroker()
    publish(broker, -1)
    async with probing(handling_app(retry=1, dead_letter=False), broker, stall_timeout=1) as probe:
        body = await probe.becomes("/ready", 503)
        while "stopped" not in body:
            body = await probe.becomes("/ready", 503)
        assert body.startswith("app.handle stopped: ")
        assert "it is negative" in body
        assert (await probe.get("/live"))[0] == 200
        assert "app.handle has fetched nothing for 1 s: " in await probe.becomes("/live", 503)


async def test_a_group_that_the_broker_refuses_is_not_ready() -> None:
    broker = MemoryBroker()
    broker.faults.fail_next("fetch", NotAuthorized("group app.handle is not yours"))
    async with probing(handling_app(), broker) as probe:
        body = await probe.becomes("/ready", 503)
        while "yours" not in body:
            body = await probe.becomes("/ready", 503)
        assert body == "app.handle is not connected: group app.handle is not yours\n"


async def test_a_partition_that_cannot_be_read_is_not_ready_but_live() -> None:
    broker = MemoryBroker()
    broker.faults.unreadable[P0] = (1, CorruptBatch("the checksum is wrong"))
    publish(broker, 1, 2)
    async with probing(handling_app(), broker, stall_timeout=1) as probe:
        await until(lambda: probe.worker.status().groups[0].unreadable)
        assert await probe.get("/ready") == (503, "app.handle cannot read t[0]: the checksum is wrong\n")
        await asyncio.sleep(1.2)  # longer than the stall timeout: starting again would find the same
        assert await probe.get("/live") == (200, "ok\n")


async def test_commits_that_fail_are_not_ready_then_not_live_and_both_again_when_they_succeed() -> None:
    broker = MemoryBroker()
    async with probing(handling_app(), broker, stall_timeout=1) as probe:
        await probe.becomes("/ready", 200)
        broker.faults.fail_next("commit", TransportError("the coordinator is loading"), times=30)
        publish(broker, 1)
        assert await probe.becomes("/ready", 503) == "app.handle cannot commit: the coordinator is loading\n"
        body = await probe.becomes("/live", 503)
        assert body == "app.handle has committed nothing for 1 s: the coordinator is loading\n"
        await probe.becomes("/ready", 200)
        await probe.becomes("/live", 200)


class SilentTransport(MemoryTransport):
    """Its consumers get no answer to questions about offsets while `away` is given."""

    away: Exception | None = None

    def consumer(self, *arguments: Any, **options: Any) -> Any:
        consumer = super().consumer(*arguments, **options)
        offsets = consumer.offsets

        async def asked(*given: Any) -> Any:
            if self.away is not None:
                raise self.away
            return await offsets(*given)

        consumer.offsets = asked  # type: ignore[method-assign, assignment]
        return consumer


async def test_a_broker_that_is_away_is_not_ready_but_live() -> None:
    broker = MemoryBroker()
    transport = SilentTransport(broker)
    async with probing(handling_app(), broker, transport) as probe:
        await probe.becomes("/ready", 200)
        transport.away = ConnectionFailed("connection refused")
        assert "does not answer: connection refused" in await probe.becomes("/ready", 503)
        assert (await probe.get("/live"))[0] == 200
        transport.away = None
        await probe.becomes("/ready", 200)


async def test_a_spare_member_without_partitions_becomes_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octopus.worker.health.JOIN_TIME", 0.5)
    broker = MemoryBroker()
    async with probing(handling_app(), broker) as first:
        await first.becomes("/ready", 200)
        async with probing(handling_app(), broker) as second:
            await second.becomes("/ready", 200)
            both = [*first.worker.status().groups, *second.worker.status().groups]
            assert sorted(len(group.partitions) for group in both) == [0, 1]


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", 404, "/live, /ready and /status"),
        (b"POST /live HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405, "Only GET"),
        (b"hello\r\n\r\n", 400, "no HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "no HTTP/1.1"),
        (b"GET /live HTTP/1.1\r\nX: " + b"x" * REQUEST_BYTES, 431, "too large"),
    ],
    ids=["an unknown path", "another method", "no HTTP", "a TLS greeting", "endless headers"],
)
async def test_what_is_not_a_question_is_refused(request_: bytes, code: int, said: str) -> None:
    async with probing(Octopus("app"), MemoryBroker()) as probe:
        found, body = await probe.send(request_)
        assert found == code
        assert said in body


async def test_connections_that_dawdle_are_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octopus.worker.endpoints.REQUEST_TIME", 0.5)
    async with probing(Octopus("app"), MemoryBroker()) as probe:
        idle = [await asyncio.open_connection("127.0.0.1", probe.port) for _ in range(CONNECTIONS)]
        assert (await probe.send(b"GET /live HTTP/1.1\r\n\r\n"))[0] == 0
        for reader, writer in idle:
            assert await asyncio.wait_for(reader.read(), 3) == b""
            writer.close()
        await probe.becomes("/live", 200)


async def test_who_is_still_connected_at_the_end_does_not_hold_it_up() -> None:
    async with probing(Octopus("app"), MemoryBroker()) as probe:
        reader, writer = await asyncio.open_connection("127.0.0.1", probe.port)
        await probe.get("/live")
    assert await asyncio.wait_for(reader.read(), 1) == b""
    writer.close()


async def test_a_port_that_is_taken_is_reported_and_the_worker_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = {"worker": {"health_port": taken.getsockname()[1]}}
        settings = config.load(given)
        async with Worker(Octopus("app"), settings, transport=MemoryTransport(MemoryBroker())) as worker:
            with caplog.at_level(logging.ERROR):
                await asyncio.wait_for(health_endpoints(settings.worker)(worker), 2)
    assert "no health endpoints on 127.0.0.1:" in caplog.text


PROGRAM = """
from octopus import Octopus
app = Octopus("app", brokers="memory://health", settings={"worker": {"health_port": PORT}})
@app.on("t")
async def handle(value: int) -> None: ...
app.run()
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [0, 2], ids=["alone", "the second of several"])
async def test_a_process_listens_on_its_own_port(tmp_path: Path, number: int) -> None:
    port = free_port()
    program = tmp_path / "app.py"
    program.write_text(PROGRAM.replace("PORT", str(port - number)))
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])} | ({"OCTOPUS_WORKER": str(number)} if number else {})
    process = subprocess.Popen([sys.executable, str(program)], env=environment, cwd=tmp_path)
    try:
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(OSError):
                    answer = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/live", timeout=5))
                    assert answer.read() == b"ok\n"
                    break
                await asyncio.sleep(0.05)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 10) == 0
    finally:
        process.kill()
        process.wait()
