"""The process that started this one and without which this one is not wanted."""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping

from octopus.logs import get_logger

logger = get_logger("octopus.worker")

PARENT_VARIABLE = "OCTOPUS_PARENT"
"""Tells a process who started it, and so whether other variables are meant for it and not for its parent."""

WORKER_VARIABLE = "OCTOPUS_WORKER"
"""Tells a worker process which of several it is, from 1."""


def environment_of_child() -> dict[str, str]:
    """Return the environment for a process that is not wanted without this one."""
    return {**os.environ, PARENT_VARIABLE: str(os.getpid())}


class Parent:
    """Who started this process, if that must not end before.

    Args:
        environment: As it was started with.
        on_gone: Called before this process is stopped because that one has ended.
    """

    def __init__(self, environment: Mapping[str, str], on_gone: Callable[[], None] = lambda: None) -> None:
        self._process = _parent_of(environment)
        self._on_gone = on_gone

    def check(self) -> None:
        """Stop this process, once, when its parent has ended."""
        if self._process is not None and os.getppid() != self._process:
            self._process = None
            self._on_gone()
            logger.warning("the process that started this one has ended; ending, too")
            os.kill(os.getpid(), signal.SIGTERM)


def _parent_of(environment: Mapping[str, str]) -> int | None:
    text = environment.get(PARENT_VARIABLE, "")
    if not text.isdigit():
        return None
    parent = int(text)
    if os.getppid() != parent:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(parent, 0)
            return None  # it lives, so the variable was meant for our parent, a handler's for example
    return parent
