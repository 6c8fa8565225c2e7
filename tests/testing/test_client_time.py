"""Virtual time under the test client: backoff, time limits, timers and windows take no time."""

import asyncio
import itertools
import threading
import time
from datetime import timedelta

import anyio
import anyio.to_thread
import msgspec
import pytest

from octopus import Event, Octopus, RetryPolicy
from octopus.testing import DONE, TestClient


class File(msgspec.Struct):
    path: str
    size: int = 0


@pytest.fixture
def app() -> Octopus:
    return Octopus("beamline")


def test_hours_of_backoff_settle_in_milliseconds(app: Octopus) -> None:
    waits: list[float] = []

    @app.on("files", retry=RetryPolicy(attempts=8, backoff=3600, maximum=86400, jitter=0))
    async def late(event: Event[File]) -> None:
        waits.append(asyncio.get_running_loop().time())
        if event.attempt < 8:
            raise OSError

    with TestClient(app) as client:
        began = time.perf_counter()
        assert client.publish("files", File("/a")) == {"late": DONE}
        assert time.perf_counter() - began < 0.5
    hours = [round((later - earlier) / 3600) for earlier, later in itertools.pairwise(waits)]
    assert hours == [1, 2, 4, 8, 16, 24, 24]


async def test_sleeping_handlers_take_no_time_and_time_outs_come_true(app: Octopus) -> None:
    @app.on("slow", timeout=60, retry=1)
    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async with TestClient(app) as client:
        assert await client.publish("slow", 59) == {"slow": DONE}
        with pytest.raises(TimeoutError, match="longer than 60 s"):
            await client.publish("slow", 61)


async def test_a_sync_handler_is_not_overtaken_by_a_jump(app: Octopus) -> None:
    @app.on("slow", timeout=30)
    def slow(value: int) -> None:
        time.sleep(0.05)

    @app.on("slow")
    async def other(value: int) -> None:
        await anyio.to_thread.run_sync(time.sleep, 0.05)
        await asyncio.to_thread(time.sleep, 0.05)

    @app.every(3600)
    async def hourly() -> None: ...

    async with TestClient(app) as client:
        began = asyncio.get_running_loop().time()
        assert await client.publish("slow", 1) == {"slow": DONE, "other": DONE}
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_sync_handler_that_blocks_meets_its_time_limit_in_real_time(app: Octopus) -> None:
    release = threading.Event()

    @app.on("slow", timeout=0.05, retry=1)
    def slow(value: int) -> None:
        release.wait(10)

    async with TestClient(app) as client:
        with pytest.raises(TimeoutError):
            await client.publish("slow", 1)
        release.set()


async def test_sockets_work_in_virtual_time(app: Octopus) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)

    @app.on("ask", to="answers", timeout=30)
    async def ask(value: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"%d\n" % value)
        answer = await reader.readline()
        writer.close()
        return answer.decode().strip()

    async with server, TestClient(app) as client:
        await client.publish("ask", 7)
        assert [message.value for message in client.published("answers")] == [7]


async def test_timers_run_as_time_advances(app: Octopus) -> None:
    times = []

    @app.every(10)
    async def beat() -> None:
        times.append(asyncio.get_running_loop().time())
        await app.publish("beats", len(times))

    @app.every(timedelta(minutes=1))
    def minutely() -> None:
        times.append(-1)

    async with TestClient(app) as client:
        await client.advance(9.9)
        assert times == []
        await client.advance(0.1)
        assert len(client.published("beats")) == 1
        await client.advance(50)
        assert len(client.published("beats")) == 6
        assert times.count(-1) == 1


async def test_a_failing_timer_fails_the_test_and_goes_on(app: Octopus) -> None:
    @app.every(10)
    async def broken() -> None:
        raise OSError("no host")

    async with TestClient(app) as client:
        with pytest.raises(OSError, match="no host"):
            await client.advance(10)
        with pytest.raises(OSError, match="no host"):
            await client.advance(10)
        assert [failure.handler for failure in client.failures] == ["broken", "broken"]


async def test_batches_fill_or_wait_for_their_window(app: Octopus) -> None:
    sizes = []
    began = 0.0

    @app.on("readings", batch=3, within=2.0)
    async def store(readings: list[int]) -> None:
        sizes.append((len(readings), asyncio.get_running_loop().time() - began))

    async with TestClient(app) as client:
        began = asyncio.get_running_loop().time()
        outcomes = await client.publish_many("readings", range(7))
        assert outcomes == [{"store": DONE}] * 7
        assert [size for size, _ in sizes] == [3, 3, 1]
        assert [round(at) for _, at in sizes] == [0, 0, 2]
        await client.publish("readings", 1, settle=False)
        await client.advance(1.9)
        assert len(sizes) == 3
        await client.advance(0.1)
        assert len(sizes) == 4


async def test_the_loop_has_its_own_clock_again_afterwards(app: Octopus) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with TestClient(app) as client:
        await client.advance(1e6)
        assert loop.time() > before + 1e6
    assert before <= loop.time() < before + 60
    await asyncio.sleep(0.001)


async def test_published_records_are_stamped_in_virtual_time(app: Octopus) -> None:
    async with TestClient(app) as client:
        await app.publish("out", 1)
        await client.advance(3600)
        await app.publish("out", 2)
        first, second = client.published("out")
        assert second.timestamp - first.timestamp == pytest.approx(3600, abs=0.01)
        assert abs(first.timestamp - time.time()) < 60
