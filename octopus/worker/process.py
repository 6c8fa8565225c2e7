"""A worker as a process: signals, uvloop, exit codes; and several of them."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from octopus import config
from octopus.app import Octopus
from octopus.config import Settings
from octopus.errors import AuthError, ConfigurationError, HandlerStopped, OctopusError, TransportError
from octopus.logs import LineFormatter, get_logger, show
from octopus.worker.collector import patient_collector
from octopus.worker.health import health_endpoints
from octopus.worker.places import PARENT_VARIABLE, PLACE_VARIABLE, Places, place_of
from octopus.worker.worker import Worker

logger = get_logger("octopus.worker")

Companion = Callable[[Worker], Awaitable[None]]
"""Runs beside a worker and is cancelled when it ends: a live status, a health endpoint."""


WORKER_VARIABLE = "OCTOPUS_WORKER"
"""Tells a worker process which of several it is, from 1."""


class ExitCode(IntEnum):
    """How a process ends. Documented in docs/operating.md."""

    OK = 0
    FAILED = 1
    CONFIGURATION = 2
    UNREACHABLE = 3
    STOPPED_LINE = 4
    INTERRUPTED = 130


def run(app: Octopus, overrides: Mapping[str, Any]) -> None:
    """Run an app as a process until it is stopped, with settings from file and environment. Called by `app.run`.

    Raises:
        ConfigurationError: An event loop runs here already, or this is not the main thread.
        SystemExit: With an exit code other than 0.
    """
    if asyncio._get_running_loop() is not None:
        raise ConfigurationError(
            f"app.run() of {app.name} was called inside a running event loop, and it needs one of its own. Here use "
            "`async with app.running():`."
        )
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            f"app.run() of {app.name} was called in thread {threading.current_thread().name!r}, but signals, which stop it, "
            "reach the main thread only. Call it there, or use `async with app.running():` in an event loop of this thread."
        )
    code = ExitCode.CONFIGURATION
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    show(handler, "INFO")
    try:
        settings = config.load(config.merge(app.settings, *read_sources(), overrides))
        show(handler, settings.log.level.upper())
        code = run_process(app, settings)
    except ConfigurationError as error:
        logger.error("%s", error)  # noqa: TRY400 - a sentence says it all
    except OctopusError as error:
        logger.error("%s", error)  # noqa: TRY400
        code = ExitCode.UNREACHABLE
    if code:
        raise SystemExit(code)


def read_sources(directory: Path | None = None) -> list[dict[str, Any]]:
    """Return the settings of the file and of the environment, in the order in which they override.

    The file is `octopus.toml`, or else `[tool.octopus]` of `pyproject.toml`, in `directory` (the current one when None).
    """
    here = directory or Path.cwd()
    sources = []
    for name, pyproject in (("octopus.toml", False), ("pyproject.toml", True)):
        path = here / name
        if path.is_file():
            try:
                sources.append(config.from_toml(path.read_text(encoding="utf-8"), pyproject=pyproject))
            except ConfigurationError as error:
                raise ConfigurationError(f"{path.name}: {error}") from error
            break
    return [*sources, config.from_environment(os.environ)]


def run_process(
    app: Octopus,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    until_caught_up: bool = False,
    companions: Sequence[Companion] = (),
) -> ExitCode:
    """Run an app in this process until a signal, the end of its lines, or the end of its backlog.

    The first SIGTERM or SIGINT drains: fetching stops, what runs may finish within `worker.drain_timeout`, offsets are
    committed, the groups are left. The second ends the process at once; nothing unfinished is committed. A broker that
    cannot be reached at the start, or refuses, ends it with `UNREACHABLE`: whoever keeps processes running tries again.
    """
    if settings.worker.health_port is not None:
        companions = [*companions, health_endpoints(settings.worker, int(os.environ.get(WORKER_VARIABLE, "1")))]
    with patient_collector(), _loop_factory() as factory, asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(app, settings, only, until_caught_up, companions))


async def _run(
    app: Octopus, settings: Settings, only: Sequence[str], until_caught_up: bool, companions: Sequence[Companion]
) -> ExitCode:
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def on_stop() -> None:
        stop.set()
        if starting is not None:
            starting.cancel()  # nothing runs yet, so there is nothing to wait for

    with _signals(on_stop):
        worker = Worker(app, settings, only=only, threaded=True, place=place_of(os.environ))
        try:
            async with worker:
                starting = None
                await _until_end(worker, stop, until_caught_up, companions)
        except HandlerStopped:
            pass
        except (TransportError, AuthError) as error:
            what = "ends" if starting is None else "does not start"
            logger.error("%s %s: %s", app.name, what, error)  # noqa: TRY400 - a sentence says it all
            return ExitCode.UNREACHABLE
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
        return _exit_code(worker.failures)


async def _until_end(
    worker: Worker, stop: asyncio.Event, until_caught_up: bool, companions: Sequence[Companion]
) -> None:
    ends = [asyncio.create_task(stop.wait()), asyncio.create_task(worker.wait())]
    if until_caught_up:
        ends.append(asyncio.create_task(worker.caught_up()))
    beside = [asyncio.ensure_future(companion(worker)) for companion in companions]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if (error := task.exception()) is not None and not isinstance(error, OctopusError):
                raise error
        if stop.is_set():
            logger.info("stopping: letting handlers finish for up to %.0f s", worker.settings.worker.drain_timeout)
    finally:
        for task in (*ends, *beside):
            task.cancel()
        await asyncio.gather(*ends, *beside, return_exceptions=True)


def _exit_code(failures: Sequence[BaseException]) -> ExitCode:
    if any(isinstance(failure, HandlerStopped) for failure in failures):
        return ExitCode.STOPPED_LINE
    if any(isinstance(failure, OctopusError) for failure in failures):
        return ExitCode.UNREACHABLE
    return ExitCode.FAILED if failures else ExitCode.OK


@contextlib.contextmanager
def _signals(on_stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    seen = False

    # Not loop.add_signal_handler: a handler that blocks the loop must not block the second signal.
    def on_signal(number: int, _frame: object) -> None:
        nonlocal seen
        if seen:
            # The second time somebody means it. Nothing is flushed or committed: unfinished records come again.
            os._exit(128 + number)
        seen = True
        loop.call_soon_threadsafe(on_stop)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _loop_factory() -> Iterator[Callable[[], asyncio.AbstractEventLoop] | None]:
    try:
        import uvloop
    except ImportError:
        yield None
    else:
        yield uvloop.new_event_loop


def run_processes(command: Sequence[str], count: int, *, grace: float, places: Places | None = None) -> int:
    """Run `command` in `count` processes and keep them: one that dies is replaced, a stop is passed on to all.

    Args:
        command: What each process runs.
        count: How many.
        grace: Seconds from the first stop signal to SIGKILL.
        places: What they are called in their groups, so that a replacement is not a newcomer there.

    Returns:
        The highest exit code of those that ended by themselves, 0 after a stop.
    """
    return _Family(command, count, grace, places).run()


class _Family:
    """A few equal processes and their end."""

    CRASH_WAIT = 1.0

    def __init__(self, command: Sequence[str], count: int, grace: float, places: Places | None) -> None:
        self._command = [*command]
        self._count = count
        self._grace = grace
        self._places = places
        self._stopping_at: float | None = None
        self._children: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._numbers: dict[int, int] = {}  # pid → 1 to count
        self._restarts: list[tuple[float, int]] = []  # when to start another, monotonic; which number it has
        self._killed: set[int] = set()  # those that ended in a stop without giving up their places
        self._worst = 0

    def run(self) -> int:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in range(1, self._count + 1):
                self._start(number)
            while self._children or self._restarts:
                self._look()
        finally:
            for child, _ in self._children.values():
                child.kill()
            if self._places is not None:
                self._places.end(self._killed)
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._worst

    def _start(self, number: int) -> None:
        # A replacement takes the number of the one it replaces: its place in the groups, and what log lines begin with.
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid()), WORKER_VARIABLE: str(number)}
        if self._places is not None:
            environment[PLACE_VARIABLE] = self._places.name(number)
        child = subprocess.Popen(self._command, env=environment, start_new_session=True)  # noqa: S603 - our own command line
        self._children[child.pid] = child, time.monotonic()
        self._numbers[child.pid] = number
        if self._stopping_at is not None:
            child.terminate()  # the signal came in between, and did not reach this one

    def _look(self) -> None:
        # Looks every 0.1 s: waitpid(-1) would also reap children that are not ours when somebody embeds this.
        for pid, (child, began) in [*self._children.items()]:
            code = child.poll()
            if code is None:
                continue
            del self._children[pid]
            self._ended(self._numbers.pop(pid), code, time.monotonic() - began)
        now = time.monotonic()
        if self._stopping_at is not None:
            self._killed.update(number for _, number in self._restarts)
            self._restarts.clear()
            if now > self._stopping_at + self._grace:
                for child, _ in self._children.values():
                    child.kill()
        for moment, number in [each for each in self._restarts if each[0] <= now]:
            self._restarts.remove((moment, number))
            self._start(number)
        time.sleep(0.1)

    def _ended(self, number: int, code: int, lived: float) -> None:
        if self._stopping_at is not None:
            if code != ExitCode.OK:
                self._killed.add(number)
            return
        if code in (ExitCode.OK, ExitCode.CONFIGURATION, ExitCode.UNREACHABLE, ExitCode.STOPPED_LINE):
            self._worst = max(self._worst, code)  # it meant to end: starting it again would end the same way
            if self._places is not None and code in (ExitCode.OK, ExitCode.STOPPED_LINE):
                self._places.left(number)
            return
        logger.warning("a worker process ended with %s after %.0f s; starting another", spell(code), lived)
        wait = self.CRASH_WAIT if lived < self.CRASH_WAIT else 0.0
        self._restarts.append((time.monotonic() + wait, number))

    def _on_signal(self, number: int, _frame: object) -> None:
        again = self._stopping_at is not None
        self._stopping_at = self._stopping_at or time.monotonic()
        for child, _ in self._children.values():
            child.send_signal(signal.SIGKILL if again else number)


def spell(code: int) -> str:
    """Say how a process ended, from its return code: a negative one is a signal."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def this_command(*arguments: str) -> list[str]:
    """Return the command line that runs `octopus` with these arguments in this interpreter."""
    return [sys.executable, "-m", "octopus", *arguments]
