"""Where one may publish and run from: whoever does it elsewhere is told at once what to use instead."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from octopus import Octopus, config
from octopus.errors import ConfigurationError, ConnectionFailed
from octopus.events import Published, TopicPartition
from octopus.home import Home
from octopus.synchronous import SynchronousPublisher
from octopus.testing import TestClient
from octopus.testing.faults import EmbeddedBroker
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, memory_transport
from octopus.worker import Worker
from tests.staged import until, working

ROOT = Path(__file__).parents[1]


def raised(call: Callable[[], Any]) -> str:
    """Return what a call says that must not succeed."""
    try:
        call()
    except ConfigurationError as error:
        return str(error)
    raise AssertionError(f"{call} succeeded")


# ── another event loop ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("many", [False, True], ids=["publish", "publish_many"])
async def test_publishing_from_the_loop_of_another_thread_is_refused_at_once_and_harms_nobody(many: bool) -> None:
    app = Octopus("app", brokers="memory://foreign-loop", settings={"topics": {"partitions": 1}})

    def elsewhere() -> Any:
        return asyncio.run(app.publish_many("t", [1]) if many else app.publish("t", 1))

    async with app.connected():
        said = await asyncio.to_thread(raised, elsewhere)
        assert said.startswith("The connection of app was opened in another event loop than this call comes from.")
        for instead in ("app.connected()", "app.synchronous_publisher()", "asyncio.run_coroutine_threadsafe"):
            assert instead in said
        assert (await app.publish("t", 2)).topic == "t"


async def test_what_a_thread_hands_over_to_the_loop_is_published() -> None:
    app = Octopus("app", brokers="memory://handed-over", settings={"topics": {"partitions": 1}})
    loop = asyncio.get_running_loop()

    def elsewhere() -> Published:
        return asyncio.run_coroutine_threadsafe(app.publish("t", 1), loop).result(10)

    async with app.connected():
        assert await asyncio.to_thread(elsewhere) == Published("t", 0, 0)


async def test_an_app_that_is_connected_in_two_loops_publishes_through_the_one_that_asks() -> None:
    app = Octopus("app", brokers="memory://two-loops", settings={"topics": {"partitions": 1}})
    opened, done, broker = threading.Event(), threading.Event(), memory_transport("two-loops", {}).broker

    async def elsewhere() -> Published:
        async with app.connected():
            opened.set()
            published = await app.publish("t", "theirs")
            await asyncio.to_thread(done.wait)
            return published

    async with app.connected():
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        await asyncio.to_thread(opened.wait)
        await app.publish("t", "ours")  # although the other connection is the newer one
        async with app.connected():
            await app.publish("t", "ours, through a second connection")
        await app.publish("t", "ours again")
        done.set()
        await other
    assert broker.log(TopicPartition("t", 0)).end == 4


async def test_a_handler_in_a_thread_that_runs_a_loop_of_its_own_is_told() -> None:
    app, said, broker = Octopus("app"), list[str](), MemoryBroker()

    @app.on("t")
    def handle(value: int) -> None:
        said.append(raised(lambda: asyncio.run(app.publish("out", value))))

    async with working(app, broker):
        await app.publish("t", 1)
        await until(lambda: said)
    assert "another event loop" in said[0]
    assert "out" not in broker.topics


async def test_a_worker_belongs_to_the_loop_that_started_it() -> None:
    app = Octopus("app", brokers="memory://workers-home")
    app.on("t")(ignore)
    worker = Worker(app, config.load(app.settings))
    with pytest.raises(ConfigurationError, match="has not been started: use it in `async with`"):
        await worker.wait()
    async with worker:
        for method in (worker.wait, worker.caught_up, worker.ping):
            said = await asyncio.to_thread(raised, lambda method=method: asyncio.run(method()))
            assert said.startswith("The worker of app was opened in another event loop")
            assert "async with app.running()" in said
        with pytest.raises(ConfigurationError, match="has been started before"):
            await worker.__aenter__()
    with pytest.raises(ConfigurationError, match="has been started before"):
        async with worker:
            pass


async def ignore(value: object) -> None:
    """Do nothing."""


async def test_running_as_a_process_inside_a_running_loop_names_what_to_use() -> None:
    app = Octopus("app", brokers="memory://nested")
    with pytest.raises(ConfigurationError, match=r"inside a running event loop.*`async with app\.running\(\):`"):
        app.run()


def test_running_as_a_process_in_another_thread_names_what_to_use() -> None:
    app, said = Octopus("app", brokers="memory://side-thread"), list[str]()
    thread = threading.Thread(target=lambda: said.append(raised(app.run)), name="side")
    thread.start()
    thread.join()
    assert "in thread 'side', but signals, which stop it, reach the main thread only" in said[0]


def test_a_test_client_that_is_not_async_says_so_in_a_coroutine() -> None:
    app, said = Octopus("app"), list[str]()

    @app.on("t")
    async def handle(value: int) -> None:
        said.append(raised(lambda: client.publish("u", value)))

    with TestClient(app) as client:
        client.publish("t", 1)
    assert "app.publish" in said[0]


# ── the synchronous publisher ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_synchronous_publisher_works_in_a_coroutine() -> None:
    app = Octopus("app", brokers="memory://in-a-coroutine", settings={"topics": {"partitions": 1}})
    with app.synchronous_publisher() as publisher:  # as in a callback of somebody's loop: it blocks, and it publishes
        assert publisher.publish("t", 1) == Published("t", 0, 0)


def test_a_synchronous_publisher_is_opened_once_at_a_time() -> None:
    publisher = Octopus("app", brokers="memory://opened-once").synchronous_publisher()
    with publisher:
        with pytest.raises(ConfigurationError, match="is open already; threads may share it"), publisher:
            pass
        publisher.publish("t", 1)
    with publisher:
        publisher.publish("t", 2)


def test_a_synchronous_publisher_that_is_called_in_its_own_thread_does_not_wait_for_itself() -> None:
    class Asks:
        async def send(self, message: Outgoing) -> Any:
            publisher.publish("t", 2)

    @asynccontextmanager
    async def connect() -> Any:
        yield Asks()

    publisher = SynchronousPublisher(connect, name="app")
    with publisher, pytest.raises(ConfigurationError, match="from its own thread, which would wait for itself"):
        publisher.publish("t", 1)


def test_whoever_waits_while_a_synchronous_publisher_is_closed_gets_an_error() -> None:
    waiting, said = threading.Event(), list[Exception]()

    class Stuck:
        async def send(self, message: Outgoing) -> Any:
            waiting.set()
            await asyncio.Event().wait()

    @asynccontextmanager
    async def connect() -> Any:
        yield Stuck()

    def publish() -> None:
        try:
            publisher.publish("t", 1, timeout=None)
        except ConnectionFailed as error:
            said.append(error)

    with SynchronousPublisher(connect, name="app") as publisher:
        thread = threading.Thread(target=publish)
        thread.start()
        waiting.wait()
    thread.join()
    assert "of app was closed while this waited; it may yet be stored" in str(said[0])


# ── another process ───────────────────────────────────────────────────────────────────────────────────────────────────

FORKED = """
import asyncio, multiprocessing, os, sys
from octopus import Octopus, config
from octopus.worker import Worker

app = Octopus("app", brokers=ADDRESS, settings={"topics": {"partitions": 1}})
context = multiprocessing.get_context("fork")

@app.on("read")
async def handle(value: str) -> None: ...

def in_a_child(work):
    def child(answers):
        try:
            answers.put(repr(work()))
        except Exception as error:
            answers.put(f"{type(error).__name__}: {error}")
    answers = context.Queue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    print("child:", answers.get(timeout=20), flush=True)
    process.join(20)
    print("ended:", process.exitcode, flush=True)

def opened_anew():
    with app.synchronous_publisher() as publisher:
        return publisher.publish("t", "child, its own")

async def connected_anew():
    async with app.connected():
        return await app.publish("t", "child, its own")

async def left(worker):
    await worker.__aexit__(None, None, None)
    return "left"

def publisher_in_a_fork():
    with app.synchronous_publisher() as publisher:
        publisher.publish("t", "parent")
        in_a_child(lambda: publisher.publish("t", "child"))
        in_a_child(lambda: publisher.publish_many("t", ["child"]))
        in_a_child(lambda: publisher.__exit__(None, None, None))
        in_a_child(opened_anew)
        print("parent:", publisher.publish("t", "parent again").topic)

async def app_in_a_fork():
    async with app.connected():
        await app.publish("t", "parent")
        in_a_child(lambda: asyncio.run(app.publish("t", "child")))
        in_a_child(lambda: asyncio.run(connected_anew()))
        print("parent:", (await app.publish("t", "parent again")).topic)

async def worker_in_a_fork():
    async with Worker(app, config.load(app.settings)) as worker:
        await app.publish("t", "parent")
        in_a_child(lambda: asyncio.run(worker.wait()))
        in_a_child(lambda: asyncio.run(left(worker)))
        in_a_child(lambda: asyncio.run(connected_anew()))
        await worker.ping()
        print("parent:", (await app.publish("t", "parent again")).topic)

async def block_left_in_a_fork():
    async with app.connected():
        waiting = [asyncio.create_task(app.publish("t", "parent")) for _ in range(3)]
        await asyncio.sleep(0)
        if child := os.fork():
            await asyncio.gather(*waiting)
            print("ended:", os.waitpid(child, 0)[1], flush=True)
            print("parent:", (await app.publish("t", "parent again")).topic)
            return
    os._exit(0)

work = globals()[sys.argv[1]]()
if work is not None:
    asyncio.run(work)
"""
REFUSED = "ConfigurationError: {} was opened by process PARENT, of which this one, CHILD, is a fork: no connection survives that."
OURS = "child: Published(topic='t', partition=0, offset={})"


@pytest.mark.process
@pytest.mark.parametrize(
    ("what", "expected", "stored"),
    [
        pytest.param(
            "publisher_in_a_fork",
            ["child: " + REFUSED.format("The synchronous publisher of app")] * 2 + ["child: None", OURS.format(1)],
            3,
            id="a synchronous publisher",
        ),
        pytest.param(
            "app_in_a_fork",
            ["child: " + REFUSED.format("The connection of app"), OURS.format(1)],
            3,
            id="an app that is connected",
        ),
        pytest.param(
            "worker_in_a_fork",
            ["child: " + REFUSED.format("The worker of app"), "child: 'left'", OURS.format(1)],
            3,
            id="a worker",
        ),
        pytest.param("block_left_in_a_fork", [], 4, id="a block that the fork leaves while records are on their way"),
    ],
)
async def test_a_fork_is_told_to_connect_anew_ends_and_delivers_nothing_of_its_parents(
    tmp_path: Path, what: str, expected: list[str], stored: int
) -> None:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", FORKED.replace("ADDRESS", repr(broker.address)), what],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        lines = ran.stdout.splitlines()
        assert lines[-1] == "parent: t", ran.stderr
        assert [line for line in lines if line.startswith("ended:")] == ["ended: 0"] * (len(expected) or 1)
        for line, wanted in zip([line for line in lines if line.startswith("child:")], expected, strict=True):
            before, _, after = wanted.partition("PARENT")
            assert line.startswith(before)
            assert after.partition("CHILD")[2] in line
        app = Octopus("judge", brokers=broker.address)
        async with app.connected():
            assert (await app.publish("t", "the last")).offset == stored


async def test_home_is_the_loop_and_the_process_that_opened_something() -> None:
    home = Home()
    assert home.is_here()
    assert not home.was_forked
    assert not await asyncio.to_thread(home.is_here)
