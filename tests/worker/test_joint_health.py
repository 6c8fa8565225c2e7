"""One port answers for several workers, and names those in trouble; asked over real sockets."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from typing import Any

import msgspec
import pytest

from octopus import Octopus, config
from octopus.config import WorkerSettings
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.worker import Worker
from octopus.worker.health import health_endpoints
from octopus.worker.joint_health import JointHealth, joint_health
from tests.worker.test_health import Probe, handling_app

COUNT = 3


@pytest.fixture
def port() -> int:
    """The first of a few free ones in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, ExitStack() as others:
            number: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                for each in range(number + 1, number + 1 + COUNT):
                    others.enter_context(socket.create_server(("127.0.0.1", each)))
                return number


@pytest.fixture
def silent(port: int) -> Iterator[socket.socket]:
    """Worker 2 takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", port + 2))) as listening:
        yield listening


@asynccontextmanager
async def working(port: int, number: int, app: Octopus | None = None) -> AsyncIterator[Probe]:
    """A worker with its own endpoints, as one of several."""
    app = app or handling_app()
    given: dict[str, Any] = {"topics": {"partitions": 1}, "worker": {"health_port": port, "commit_interval": 0.05}}
    settings = config.load(config.merge(app.settings, given))
    async with Worker(app, settings, transport=MemoryTransport(MemoryBroker())) as worker:
        companion = asyncio.ensure_future(health_endpoints(settings.worker, number)(worker))
        probe = Probe(worker, port + number)
        try:
            async with asyncio.timeout(8):
                while True:
                    with suppress(OSError):
                        if (await probe.get("/ready"))[0] == 200:
                            break
                    await asyncio.sleep(0.02)
            yield probe
        finally:
            companion.cancel()
            await asyncio.gather(companion, return_exceptions=True)


@asynccontextmanager
async def asked_together(port: int, count: int) -> AsyncIterator[Probe]:
    with joint_health(WorkerSettings(health_port=port), count):
        probe = Probe(None, port)  # type: ignore[arg-type]  # of no worker alone
        async with asyncio.timeout(8):
            while True:
                with suppress(OSError):
                    await probe.get("/")
                    break
                await asyncio.sleep(0.02)
        yield probe


async def test_workers_that_all_work_are_live_and_ready_and_each_has_its_status(port: int) -> None:
    async with working(port, 1), working(port, 2), asked_together(port, 2) as probe:
        assert await probe.get("/live") == (200, "ok\n")
        assert await probe.get("/ready") == (200, "ok\n")
        code, body = await probe.get("/status")
        workers = msgspec.json.decode(body)["workers"]
        assert (code, [(each["worker"], each["status"]["app"]) for each in workers]) == (200, [(1, "app"), (2, "app")])


async def test_a_worker_that_is_not_up_makes_them_not_ready_but_live(port: int) -> None:
    async with working(port, 1), asked_together(port, 2) as probe:
        assert await probe.get("/live") == (200, "ok\n")
        assert await probe.get("/ready") == (503, "worker 2: is not up\n")
        workers = msgspec.json.decode((await probe.get("/status"))[1])["workers"]
        assert [each["status"] is None for each in workers] == [False, True]


async def test_what_a_worker_says_of_its_trouble_is_said_with_its_number(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(port, 1), working(port, 2) as second, asked_together(port, 2) as probe:

        async def away() -> None:
            raise TimeoutError

        monkeypatch.setattr(second.worker, "ping", away)
        (said,) = (await probe.becomes("/ready", 503)).splitlines()
        assert said.startswith("worker 2: ")
        assert "does not answer" in said


@pytest.mark.usefixtures("silent")
async def test_a_worker_that_hangs_is_named_and_makes_them_not_live(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octopus.worker.joint_health.ANSWER_TIME", 0.2)
    async with asked_together(port, 2) as probe:
        assert await probe.get("/live") == (503, "worker 2: does not answer within 0.2 s\n")
        assert await probe.get("/ready") == (503, "worker 1: is not up\nworker 2: does not answer within 0.2 s\n")


async def test_another_program_on_a_workers_port_is_no_worker(port: int) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", port + 1):
        health = JointHealth("0.0.0.0", range(port + 1, port + 2))
        assert await health.why_not_ready() == ["worker 1: is not up"]
        assert await health.why_not_live() == []


@pytest.mark.parametrize("given", [None, 0], ids=["no port", "any port"])
def test_without_a_port_of_its_own_nothing_listens(given: int | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with joint_health(WorkerSettings(health_port=given), 2):
        pass
    assert not caplog.records


def test_a_port_that_is_taken_is_reported_and_the_workers_go_on(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", port)), joint_health(WorkerSettings(health_port=port), 2):
        pass
    assert f"no health endpoints on 127.0.0.1:{port}: " in caplog.text
