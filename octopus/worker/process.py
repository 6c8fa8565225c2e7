"""A worker as a process: its loop, its signals, and its end, which nothing that hangs delays for ever."""

import asyncio
import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from octopus.application import Application
from octopus.config import Settings
from octopus.errors import AuthError, HandlerStopped, OctopusError, TransportError
from octopus.logs import get_logger
from octopus.transports import opening
from octopus.transports.base import Transport
from octopus.worker.collector import patient_collector
from octopus.worker.exit_codes import ExitCode, exit_code, last_fields
from octopus.worker.health import health_endpoints
from octopus.worker.log_lines import end_fields, json_line
from octopus.worker.overtime import Overtime, end_process
from octopus.worker.parent import WORKER_VARIABLE, Parent
from octopus.worker.places import client_id, place_of
from octopus.worker.reports import Reports
from octopus.worker.signals import StopSignals
from octopus.worker.status import last_line
from octopus.worker.switching import prompt_switches
from octopus.worker.worker import Worker

logger = get_logger("octopus.worker")

Companion = Callable[[Worker], Awaitable[None]]
"""Runs beside a worker and is cancelled when it ends: a live status, a health endpoint."""


class Connect(Protocol):
    """Makes a worker's transport; nothing connects yet."""

    def __call__(self, settings: Settings, *, client_id: str) -> Transport:
        """Return it; `client_id` is our name in the broker's logs. Raises `ConfigurationError` as `octopus.transports.opening`."""
        ...


END_MARGIN = 30.0
"""Seconds beyond `worker.drain_timeout` in which a stopped process must have ended: the clean-up of handlers that were cancelled,
the last commit, the goodbye to the groups, the end of the lifespan."""

STDERR = 2
"""The descriptor."""

CLEAN_UP_TIME = 1.0
"""Seconds for tasks and threads that had their time already."""


def run_process(
    app: Application,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    until_caught_up: bool = False,
    companions: Sequence[Companion] = (),
    connect: Connect = opening.connect,
) -> ExitCode:
    """Run an app in this process until a signal, the end of its lines, or the end of its backlog; then say how it ended.

    The first SIGTERM or SIGINT drains: fetching stops, what runs may finish within `worker.drain_timeout`, offsets are
    committed, the groups are left. Another one in the same second is the same stop; a later one ends the process at once, and
    nothing unfinished is committed. So does, with a sentence, the end of `END_MARGIN` seconds beyond `worker.drain_timeout`,
    also where something hangs; and a parent that is gone is a stop, too. A broker that cannot be reached at the start, or refuses, ends
    it with `UNREACHABLE`, so that a process manager tries again.

    Args:
        app: Whose handlers run.
        settings: Of the run.
        only: As `Worker`.
        until_caught_up: Whether the end of the backlog is the end.
        companions: What else runs.
        connect: Makes the transport; by default the one that the settings ask for.
    """
    if settings.worker.health_port is not None:
        companions = [*companions, health_endpoints(settings.worker, int(os.environ.get(WORKER_VARIABLE, "0")))]
    parent = Parent(os.environ)
    if (reports := Reports.inherited(os.environ)) is not None:
        companions = [*companions, reports]
        parent = Parent(os.environ, reports.give_back)
    run = _Run(app, settings, only, until_caught_up, companions, parent, connect)
    with patient_collector(), prompt_switches(), _loop_factory() as factory:
        return run.run(factory)


class _Run:
    """One run of an app, from the first signal handler to the last line."""

    def __init__(
        self,
        app: Application,
        settings: Settings,
        only: Sequence[str],
        until_caught_up: bool,
        companions: Sequence[Companion],
        parent: Parent,
        connect: Connect,
    ) -> None:
        self._app = app
        self._settings = settings
        self._only = only
        self._until_caught_up = until_caught_up
        self._companions = companions
        self._connect = connect
        self._worker: Worker | None = None
        self._tasks: list[str] = []
        self._exit: ExitCode | None = None  # once the loop was left by SystemExit, which is said then
        self._notice: Callable[[], None] | None = None
        self._signals = StopSignals(self._on_stop, self._end_at_once)
        self._overtime = Overtime(settings.worker.drain_timeout + END_MARGIN, parent, self._running_things)

    def run(self, factory: Callable[[], asyncio.AbstractEventLoop] | None) -> ExitCode:
        self._overtime.watch()
        executor = ThreadPoolExecutor(thread_name_prefix="octopus executor")
        runner = asyncio.Runner(loop_factory=factory)
        with self._signals:
            try:
                runner.get_loop().set_default_executor(executor)
                code = self._overtime.exit_code = runner.run(self._run())
            except SystemExit as error:
                how = f"SystemExit({error.code!r}) was raised inside it, perhaps by a handler"
                self._exit = ExitCode.FAILED
                said = last_fields(error.code if isinstance(error.code, int) and error.code else ExitCode.FAILED)
                logger.error("%s ends: %s", self._app.name, how, extra=said)  # noqa: TRY400 - a sentence says it all
                if error.code:
                    raise
                return ExitCode.FAILED  # this end was not asked for
            finally:
                self._overtime.begin()
                self._close(runner, executor)
        return ExitCode(code)

    def _close(self, runner: asyncio.Runner, executor: ThreadPoolExecutor) -> None:
        """Close the loop; but what does not end although it was cancelled is not waited for."""
        self._tasks = runner.run(_cancel_all(self._settings.worker.drain_timeout + END_MARGIN))
        executor.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + CLEAN_UP_TIME
        threads = [each for each in threading.enumerate() if each.name.startswith("octopus executor")]
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._tasks += [f"a function in thread {each.name!r}" for each in threads if each.is_alive()]
        if self._tasks:
            # The interpreter would wait for it without end.
            end_process(
                self._overtime.exit_code,
                f"ended without {', '.join(self._tasks)}, which does not end although it was cancelled",
            )
        runner.close()
        self._overtime.call_off()

    def _on_stop(self, _number: int) -> None:
        self._overtime.begin()
        if self._notice is not None:
            self._notice()

    def _running_things(self) -> list[str]:
        handlers = self._worker.running_handlers() if self._worker is not None else []
        return [*handlers, *self._tasks]

    async def _run(self) -> ExitCode:
        stop = asyncio.Event()
        starting = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def on_stop() -> None:
            stop.set()
            if starting is not None:
                starting.cancel()  # nothing runs yet, so there is nothing to wait for

        def notice() -> None:
            loop.call_soon_threadsafe(on_stop)

        self._notice = notice
        if self._signals.stopped_at is not None:
            return self._stopped_early()
        name = self._app.name
        place = place_of(os.environ)
        transport = self._connect(self._settings, client_id=client_id(name, place))
        self._worker = worker = Worker(
            self._app, self._settings, only=self._only, transport=transport, threaded=True, place=place
        )
        failures: list[BaseException] = []
        try:
            async with worker:
                starting = None
                failures += await self._until_end(worker, stop)
                self._overtime.begin()
        except HandlerStopped:
            pass
        except (TransportError, AuthError) as error:
            what = "ends" if starting is None else "does not start"
            said = last_fields(ExitCode.UNREACHABLE)
            logger.error("%s %s: %s", name, what, error, extra=said)  # noqa: TRY400 - a sentence says it all
            return ExitCode.UNREACHABLE
        except asyncio.CancelledError:
            if self._exit is not None:
                return self._exit
            if not stop.is_set():
                why = "it was cancelled from inside, although no signal came"
                logger.error("%s ends: %s", name, why, extra=last_fields(ExitCode.FAILED))  # noqa: TRY400
                return ExitCode.FAILED
            if starting is not None:
                return self._stopped_early()
        status = worker.status()
        code = exit_code([*worker.failures, *failures], status)
        self._overtime.exit_code = code
        is_caught_up = self._until_caught_up and not stop.is_set()
        logger.log(
            logging.INFO if code == ExitCode.OK else logging.ERROR,
            "%s",
            last_line(status, code == ExitCode.OK, is_caught_up),
            extra=last_fields(code, status, is_caught_up),
        )
        return code

    def _stopped_early(self) -> ExitCode:
        logger.info("ended: stopped before it had begun", extra=last_fields(ExitCode.OK))
        return ExitCode.OK

    def _end_at_once(self, number: int) -> None:
        # Nothing is flushed or committed: unfinished records come again. The log may be what hangs, so this goes past it, and
        # only where it does not wait for a reader.
        with contextlib.suppress(OSError, ValueError):
            if select.select([], [STDERR], [], 0)[1]:
                name, code = signal.Signals(number).name, 128 + number
                line = f"ended at once: stopped a second time, by {name}; what was not finished will be delivered again"
                if self._settings.log.format == "json":
                    line = json_line(time.time(), "WARNING", logger.name, line, end_fields(code, "stopped again"))
                os.write(STDERR, f"{line}\n".encode())
        os._exit(128 + number)

    async def _until_end(self, worker: Worker, stop: asyncio.Event) -> list[BaseException]:
        """Wait until something ends the run; return what went wrong beside the worker."""
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(worker.wait())]
        if self._until_caught_up:
            ends.append(asyncio.create_task(worker.caught_up()))
        beside = [asyncio.ensure_future(companion(worker)) for companion in self._companions]
        failures: list[BaseException] = []
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
            await asyncio.gather(*ends, return_exceptions=True)
            for result in await asyncio.gather(*beside, return_exceptions=True):
                if isinstance(result, Exception):
                    logger.error("beside the worker: %s: %s", type(result).__name__, result)
                    failures.append(result)
        return failures


def grace_of(settings: Settings) -> float:
    """Return the seconds to leave a worker process after a stop: a little more than it leaves itself."""
    return settings.worker.drain_timeout + END_MARGIN + 5


async def _cancel_all(budget: float) -> list[str]:
    """End every task; return the names of those that do not end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if not tasks:
        return []
    # One that is not cancelled yet may still have a group to leave: something has left the loop in the middle of it.
    patience = CLEAN_UP_TIME if all(task.cancelling() for task in tasks) else budget
    for task in tasks:
        task.cancel()
    done, late = await asyncio.wait(tasks, timeout=patience)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s ended with %s: %s", task.get_name(), type(error).__name__, error, exc_info=error)
    return sorted(task.get_name() for task in late)


@contextlib.contextmanager
def _loop_factory() -> Iterator[Callable[[], asyncio.AbstractEventLoop] | None]:
    try:
        import uvloop
    except ImportError:
        yield None
    else:
        yield uvloop.new_event_loop
