"""`octopus run`: an app's handlers, in one process or several."""

import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from octopus import config
from octopus.app import Octopus
from octopus.cli.live import LiveStatus, topics_of
from octopus.cli.live_workers import LiveWorkers
from octopus.cli.logs import configure_logs, log_error
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.screen import is_terminal, notices
from octopus.config import Settings
from octopus.config.loading import suggestion
from octopus.errors import ConfigurationError
from octopus.logs import get_logger
from octopus.operations.apps import find_app, source_directory
from octopus.transports.topic_creation import check_topic_names
from octopus.worker import Worker
from octopus.worker.exit_codes import ExitCode, last_fields
from octopus.worker.joint_health import joint_health
from octopus.worker.launch import this_command
from octopus.worker.overtime import end_process
from octopus.worker.parent import WORKER_VARIABLE
from octopus.worker.places import Places
from octopus.worker.process import Companion, grace_of, run_process
from octopus.worker.reports import is_looked_at
from octopus.worker.supervisor import Supervisor

logger = get_logger("octopus.worker")


verb = App(name="run", help_epilogue="")


@verb.default
def run(
    app: str | None = None,
    /,
    *,
    only: Annotated[tuple[str, ...], Parameter(help="Run only this handler. May be repeated.")] = (),
    workers: Annotated[int, Parameter(help="Processes that share the work; one that dies is replaced.")] = 1,
    drain: Annotated[
        bool, Parameter(help="Exit when everything published until now is handled, or waits in a retry topic.")
    ] = False,
    reload: Annotated[bool, Parameter(help="Start again when the code changes.")] = False,
    watch: Annotated[
        tuple[str, ...],
        Parameter(help="Also publish what happens in a directory, as DIR=TOPIC. May be repeated."),
    ] = (),
    options: Options = DEFAULTS,
) -> int:
    """Run an app's handlers until stopped.

    The first Ctrl-C (or SIGTERM) lets running handlers finish, commits and leaves; another one, more than a second later,
    ends at once. Nothing is lost either way: what was not finished is delivered again.

    Args:
        app: module:app or path/to/file.py:app; the name may be left out where there is only one app. The default is app.py or main.py.
    """
    if is_looked_at(os.environ) and isinstance(sys.stdout, io.TextIOWrapper):
        # A person waits for what handlers print, although it goes through a pipe.
        sys.stdout.reconfigure(line_buffering=True)
    found: Octopus | None = None
    try:
        _check_count(workers)
        if reload:
            from octopus.cli.reloading import run_reloading

            settings = _settings(options)
            configure_logs(settings.log, notices())
            again = this_command(*_arguments(app, only, workers, drain, watch, options))
            return run_reloading(again, source_directory(app), grace=grace_of(settings))
        found = find_app(app)
        _check_names(found, only)
        settings = _settings(options, found)
        if workers > 1:
            again = this_command(*_arguments(app, only, 1, drain, watch, options))
            return _run_several(workers, found, settings, again, drain, is_quiet=options.quiet)
        return _run_one(found, settings, only, drain, watch, options)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not options.logs_json({} if found is None else found.settings):
            raise
        return log_error(error, has_traceback=options.traceback)


def _check_count(workers: int) -> None:
    if workers < 1:
        raise ConfigurationError(f"--workers {workers} runs nothing: at least 1.")


def _check_names(app: Octopus, only: Sequence[str]) -> None:
    """Refuse an unknown handler before anything is connected or started."""
    names = [route.name for route in app.routes]
    if unknown := [name for name in only if name not in names]:
        hint = suggestion(unknown[0], names) or f" It has {', '.join(names) or 'none'}."
        raise ConfigurationError(f"{app.name} has no handler {unknown[0]!r}.{hint}")


def _settings(options: Options, app: Octopus | None = None) -> Settings:
    json = {"log": {"format": "json"}} if options.json else {}
    return config.load_from(
        *options.sources(app.settings if app is not None else None), config.Source(json, lambda _: "--json")
    )


def _run_one(
    app: Octopus, settings: Settings, only: Sequence[str], drain: bool, watch: Sequence[str], options: Options
) -> ExitCode:
    console = notices()
    configure_logs(settings.log, console)
    watcher = _watcher(watch)
    if not app.routes and not app.timers and watcher is None:
        raise ConfigurationError(f"{app.name} has no handlers and no timers: there is nothing to run.")

    async def announce(worker: Worker) -> None:
        logger.info("%s runs %s on %s", app.name, _spell_handlers(app, only), worker.status().broker)

    companions: list[Companion] = [announce]
    if _is_watched(console, settings, options.quiet) and WORKER_VARIABLE not in os.environ:
        companions.append(LiveStatus(console))
    if watcher is not None:
        companions.append(watcher)
    return run_process(app, settings, only=only, until_caught_up=drain, companions=companions)


def _run_several(
    count: int, app: Octopus, settings: Settings, command: Sequence[str], drain: bool, *, is_quiet: bool
) -> int:
    console = notices()
    configure_logs(settings.log, console)
    logger.info("%s runs in %d processes", app.name, count)
    grace, places = grace_of(settings), Places(app, settings)
    if _is_watched(console, settings, is_quiet):
        brokers = ", ".join(settings.brokers) or "the embedded broker"
        with joint_health(settings.worker, count), LiveWorkers(console, app.name, brokers, topics_of(app)) as audience:
            supervisor = Supervisor(command, count, grace=grace, places=places, audience=audience)
            code = supervisor.run()
        is_held_up = audience.is_held_up
    else:
        is_held_up = False
        supervisor = Supervisor(command, count, grace=grace, places=places)
        with joint_health(settings.worker, count):
            code = supervisor.run()
    logger.log(
        logging.ERROR if code else logging.INFO,
        "%s: its processes have ended, exit code %d",
        app.name,
        code,
        extra=last_fields(code, is_caught_up=drain and not supervisor.was_stopped),
    )
    if is_held_up:
        end_process(code, "the terminal takes nothing any more")
    return code


def _is_watched(console: Console, settings: Settings, is_quiet: bool) -> bool:
    """Tell whether a table is wanted, at a terminal that can show one."""
    can_draw = console.is_terminal and not console.is_dumb_terminal and is_terminal()
    return can_draw and not is_quiet and settings.log.format == "text"


def _watcher(watch: Sequence[str]) -> Companion | None:
    if not watch or os.environ.get(WORKER_VARIABLE, "1") != "1":
        return None  # of several processes one watches, or every event would come several times
    from octopus.operations.file_relay import watching_companion

    pairs = []
    for text in watch:
        directory, separator, topic = text.rpartition("=")
        if not separator or not directory or not topic:
            raise ConfigurationError(f"--watch {text!r} is not DIR=TOPIC.")
        if not Path(directory).is_dir():
            raise ConfigurationError(f"--watch {text!r}: there is no directory {directory!r}.")
        check_topic_names([topic])
        pairs.append((Path(directory), topic))
    return watching_companion(pairs)


def _arguments(
    app: str | None, only: Sequence[str], workers: int, drain: bool, watch: Sequence[str], options: Options
) -> list[str]:
    """Return the command line of a child that does the same."""
    arguments = ["run", *([app] if app else [])]
    for name, values in (("--only", only), ("--watch", watch), ("--config", options.config)):
        arguments += [f"{name}={value}" for value in values]
    arguments += [f"--workers={workers}"] if workers > 1 else []
    arguments += [f"--brokers={options.brokers}"] if options.brokers else []
    flags = (("--json", options.json), ("--drain", drain), ("--quiet", options.quiet), ("--verbose", options.verbose))
    return [*arguments, *(name for name, given in flags if given)]


def _spell_handlers(app: Octopus, only: Sequence[str]) -> str:
    names = list(only) or [route.name for route in app.routes]
    if not names:
        return f"{len(app.timers)} timers"
    return ", ".join(names) if len(names) <= 5 else f"{len(names)} handlers"
