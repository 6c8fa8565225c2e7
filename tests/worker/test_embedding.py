"""Workers inside other programs: started and stopped in a loop that belongs to somebody else."""

import ast
import asyncio
import gc
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import uvicorn

from octopus import Octopus, config
from octopus.testing.faults import EmbeddedBroker
from octopus.transports.memory import MemoryBroker
from octopus.worker import Worker
from tests.staged import committed, publish, until, working

ROOT = Path(__file__).parents[2]


def sockets() -> int:
    return len(psutil.Process().net_connections(kind="all"))


def descriptors() -> int:
    gc.collect()
    return int(psutil.Process().num_fds())


def remembering_app(**given: Any) -> tuple[Octopus, list[int]]:
    app, seen = Octopus("app", **given), list[int]()

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    return app, seen


# ── again and again ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("threaded", [False, True], ids=["in the loop", "in a thread"])
async def test_a_hundred_starts_and_stops_leave_no_task_thread_or_descriptor(threaded: bool) -> None:
    app, seen = remembering_app()
    broker = MemoryBroker()

    async def once(number: int) -> None:
        async with working(app, broker, threaded=threaded):
            publish(broker, number)
            await until(lambda: number in seen)

    await once(0)  # what is made once for the whole process may stay
    tasks, threads, open_files, open_sockets = asyncio.all_tasks(), threading.active_count(), descriptors(), sockets()
    for number in range(1, 101):
        await once(number)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() <= threads
    assert (descriptors(), sockets()) == (open_files, open_sockets)
    assert seen == [*range(101)], "each was handled once"


@pytest.mark.process
@pytest.mark.parametrize("threaded", [False, True], ids=["in the loop", "in a thread"])
async def test_starts_and_stops_on_a_real_broker_leave_no_task_thread_or_socket(tmp_path: Path, threaded: bool) -> None:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        app, seen = remembering_app(brokers=broker.address)
        settings = config.load(config.merge(app.settings, {"topics": {"partitions": 1}}))

        async def once(number: int) -> None:
            async with Worker(app, settings, threaded=threaded):
                await app.publish("t", number)
                await until(lambda: number in seen, 10)

        await once(0)
        tasks, threads, open_sockets = asyncio.all_tasks(), threading.active_count(), sockets()
        for number in range(1, 6):
            await once(number)
        await until(lambda: asyncio.all_tasks() == tasks)
        await until(lambda: threading.active_count() <= threads)
        await until(lambda: sockets() <= open_sockets)
        assert seen == [*range(6)]


# ── in a web server ───────────────────────────────────────────────────────────────────────────────────────────────────

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def web_app(lifespan: Callable[[], Any]) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return an ASGI application that has a lifespan and nothing else, as frameworks do it."""

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        assert (await receive())["type"] == "lifespan.startup"
        try:
            async with lifespan():
                await send({"type": "lifespan.startup.complete"})
                assert (await receive())["type"] == "lifespan.shutdown"
        except OSError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    return application


class Server:
    """The server's half of the lifespan: a task of its own, a message to start, a message to stop."""

    def __init__(self, application: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._application = application
        self._to: asyncio.Queue[Message] = asyncio.Queue()
        self._from: asyncio.Queue[Message] = asyncio.Queue()

    async def _run(self) -> None:
        await self._application({"type": "lifespan", "asgi": {"version": "3.0"}}, self._to.get, self._from.put)

    async def startup(self) -> Message:
        self._task = asyncio.create_task(self._run())
        return await self._exchange("lifespan.startup")

    async def shutdown(self) -> Message:
        answer = await self._exchange("lifespan.shutdown")
        await self._task
        return answer

    async def _exchange(self, what: str) -> Message:
        await self._to.put({"type": what})
        return await asyncio.wait_for(self._from.get(), 5)


async def test_a_worker_lives_in_the_lifespan_of_a_web_application() -> None:
    app, seen = remembering_app()
    broker, before = MemoryBroker(), asyncio.all_tasks()
    server = Server(web_app(lambda: working(app, broker)))
    for number in range(3):  # as a server that reloads
        assert (await server.startup())["type"] == "lifespan.startup.complete"
        await app.publish("t", number)  # what a request would do
        await until(lambda: len(seen) > number)  # noqa: B023 - awaited at once
        assert (await server.shutdown())["type"] == "lifespan.shutdown.complete"
        assert committed(broker, "app.handle") == number + 1
    assert asyncio.all_tasks() == before


async def test_a_worker_that_cannot_start_fails_the_start_of_the_web_application() -> None:
    @asynccontextmanager
    async def lifespan(_app: Octopus) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    app, _ = remembering_app(lifespan=lifespan)
    before = asyncio.all_tasks()
    server = Server(web_app(lambda: working(app)))
    assert await server.startup() == {"type": "lifespan.startup.failed", "message": "no database"}
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_uvicorn_starts_and_stops_a_worker_with_its_application() -> None:
    app, seen = remembering_app()
    broker, before = MemoryBroker(), asyncio.all_tasks()
    running = web_app(lambda: working(app, broker))
    server = uvicorn.Server(uvicorn.Config(running, port=0, lifespan="on", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    await app.publish("t", 1)
    await until(lambda: seen)
    server.should_exit = True
    await asyncio.wait_for(serving, 10)
    assert committed(broker, "app.handle") == 1
    await until(lambda: asyncio.all_tasks() == before)


# ── in a notebook ─────────────────────────────────────────────────────────────────────────────────────────────────────

CELLS = [
    "from octopus import Octopus, config\nfrom octopus.worker import Worker\nseen = []",
    """
app = Octopus("notebook", brokers="memory://notebook")
@app.on("t")
async def handle(value: int) -> None:
    seen.append(value)
""",
    "worker = Worker(app, config.load(app.settings))\nawait worker.__aenter__()",
    "await app.publish('t', 1)",
    "import asyncio\nwhile not seen: await asyncio.sleep(0.01)",
    "status = worker.status()",
    "await worker.__aexit__(None, None, None)",
]


async def test_a_notebook_starts_uses_and_stops_a_worker_cell_by_cell() -> None:
    namespace: dict[str, Any] = {"__name__": "notebook"}
    before = asyncio.all_tasks()
    for number, cell in enumerate([*CELLS, *CELLS[1:]]):  # and the cells are run once more
        # As IPython does it: compiled on its own, awaited in a task of its own, in a loop that runs already.
        code = compile(cell, f"cell {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await asyncio.wait_for(asyncio.create_task(result), 5)
        if "status" in cell:
            assert namespace["status"].app == "notebook"
    assert namespace["seen"][0] == 1
    assert asyncio.all_tasks() == before


# ── and no goodbye ────────────────────────────────────────────────────────────────────────────────────────────────────

ABANDONED = """
import asyncio, sys
from octopus import Octopus, config
from octopus.worker import Worker

app = Octopus("app", brokers=ADDRESS)
seen = []

@app.on("t")
async def handle(value: int) -> None:
    seen.append(value)
    await asyncio.sleep(3600)

async def begin():
    worker = Worker(app, config.load(app.settings), threaded=THREADED)
    await worker.__aenter__()
    await app.publish("t", 1)
    while not seen:
        await asyncio.sleep(0.01)
    return worker

if sys.argv[1] == "close":
    loop = asyncio.new_event_loop()
    worker = loop.run_until_complete(begin())
    loop.close()
else:
    worker = asyncio.run(begin())
print("closed", flush=True)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("way", "real", "threaded"),
    [
        pytest.param("close", False, False, id="loop.close, memory, in the loop"),
        pytest.param("close", False, True, id="loop.close, memory, in a thread"),
        pytest.param("close", True, False, id="loop.close, real broker, in the loop"),
        pytest.param("close", True, True, id="loop.close, real broker, in a thread"),
        pytest.param("run", False, False, id="asyncio.run, memory, in the loop"),
        pytest.param("run", False, True, id="asyncio.run, memory, in a thread"),
        # asyncio.run cancels the client's own tasks, too, that which reads the answers among them
        pytest.param("run", True, False, id="asyncio.run, real broker, in the loop"),
        pytest.param("run", True, True, id="asyncio.run, real broker, in a thread"),
    ],
)
async def test_a_host_that_ends_its_loop_without_stopping_the_worker_still_ends(
    tmp_path: Path, way: str, real: bool, threaded: bool
) -> None:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        program = ABANDONED.replace("ADDRESS", repr(broker.address if real else "memory://abandoned"))
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program.replace("THREADED", str(threaded)), way],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (0, "closed\n"), ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
