"""How a worker process begins: from `app.run`, with settings from file and environment; and the command line of another one."""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from octopus import config
from octopus.application import Application
from octopus.errors import ConfigurationError, OctopusError
from octopus.logs import LineFormatter, get_logger, show
from octopus.worker.exit_codes import ExitCode, last_fields
from octopus.worker.log_lines import JsonFormatter
from octopus.worker.process import run_process

logger = get_logger("octopus.worker")


def run(app: Application, overrides: Mapping[str, Any]) -> None:
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
    if is_json_asked_for(app.settings, overrides):
        handler.setFormatter(JsonFormatter())
    show(handler, "INFO")
    try:
        here = config.Source(overrides, lambda setting: f"{setting} in the call of run()")
        settings = config.load_from(config.in_code(app.settings), *read_sources(), here)
        show(handler, settings.log.level.upper())
        code = run_process(app, settings)
    except ConfigurationError as error:
        logger.error("%s", error, extra=last_fields(code))  # noqa: TRY400 - a sentence says it all
    except OctopusError as error:
        code = ExitCode.UNREACHABLE
        logger.error("%s", error, extra=last_fields(code))  # noqa: TRY400
    if code:
        raise SystemExit(code)


def read_sources(directory: Path | None = None) -> list[config.Source]:
    """Return the settings of the file, if there is one, and of the environment, in the order in which they override.

    The file is `octopus.toml`, or else `[tool.octopus]` of `pyproject.toml`, in `directory` (the current one when None).
    """
    return [*_read_file(directory or Path.cwd()), config.in_environment(os.environ)]


def _read_file(here: Path) -> list[config.Source]:
    for name, pyproject in (("octopus.toml", False), ("pyproject.toml", True)):
        path = here / name
        if path.is_file():
            try:
                found = config.from_toml(path.read_text(encoding="utf-8"), pyproject=pyproject)
            except ConfigurationError as error:
                raise ConfigurationError(f"{path.name}: {error}") from error
            return [config.in_file(found, name)]
    return []


def is_json_asked_for(base: Mapping[str, Any], overrides: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Tell whether the log is to be JSON. It may be asked where settings are refused, or cannot be read: that is logged, too.

    Args:
        base: The settings in the app's code.
        overrides: Those that override file and environment.
    """
    places: tuple[Callable[[], Sequence[Mapping[str, Any]]], ...] = (
        lambda: [base],
        lambda: [source.settings for source in _read_file(Path.cwd())],
        lambda: [config.in_environment(os.environ).settings],
        lambda: [overrides],
    )
    is_asked = False
    for read in places:
        with contextlib.suppress(ConfigurationError):  # it is what will be logged
            for settings in read():
                log = settings.get("log")
                if isinstance(log, Mapping) and "format" in log:
                    is_asked = log["format"] == "json"
    return is_asked


def this_command(*arguments: str) -> list[str]:
    """Return the command line that runs `octopus` with these arguments in this interpreter."""
    # -P: a file in the current directory that is called like a module of the standard library must not take its place. The console
    # script does not look there either; `python -m octopus` does.
    does_look_here = "-m" in sys.orig_argv and not sys.flags.safe_path
    return [sys.executable, *([] if does_look_here else ["-P"]), "-m", "octopus", *arguments]
