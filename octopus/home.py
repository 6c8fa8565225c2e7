"""Where clients live: the event loop and the process that opened them. Used from elsewhere they would hang or harm others."""

import asyncio
import functools
import os
import threading
from asyncio import _get_running_loop
from threading import get_ident

from octopus.errors import ConfigurationError


class Home:
    """The running event loop and this process, remembered when something is opened."""

    __slots__ = ("_forks", "_thread", "loop", "process")

    def __init__(self) -> None:
        _count_forks()
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()
        self._thread = threading.get_ident()
        self._forks = _Forks.count

    def is_here(self) -> bool:
        """Tell whether this is that loop, in that process."""
        # Publishing asks this for each event, and a process id costs a call of the kernel, in the loop's own accessor, too. A
        # thread runs one loop at a time.
        if get_ident() == self._thread and _Forks.count == self._forks and self.loop.is_running():
            return True
        return _get_running_loop() is self.loop and os.getpid() == self.process

    @property
    def was_forked(self) -> bool:
        """Whether this is a copy of that process: sockets are shared with it, threads and tasks stayed behind."""
        return os.getpid() != self.process

    def check(self, what: str, instead: str) -> None:
        """Refuse to be used from elsewhere.

        Args:
            what: Begins the sentence: the owner of this home.
            instead: The remedy elsewhere; a whole sentence or more.

        Raises:
            ConfigurationError: This is another process, or another event loop.
        """
        if not self.is_here():
            raise elsewhere(what, self.process, instead)


class Process:
    """This process, remembered when something is opened that does not survive a fork."""

    __slots__ = ("_forks", "id")

    def __init__(self) -> None:
        _count_forks()
        self.id = os.getpid()
        self._forks = _Forks.count

    def is_this(self) -> bool:
        """Tell whether this is still that process, without a call of the kernel."""
        return _Forks.count == self._forks


def elsewhere(what: str, process: int, instead: str) -> ConfigurationError:
    """Return the error of using an object where it was not opened.

    Args:
        what: Begins the sentence.
        process: The one that opened it.
        instead: The remedy here; a whole sentence or more.
    """
    if process != os.getpid():
        reason = (
            f"was opened by process {process}, of which this one, {os.getpid()}, is a fork: no connection survives that"
        )
    else:
        reason = "was opened in another event loop than this call comes from"
    return ConfigurationError(f"{what} {reason}. {instead}")


class _Forks:
    """How many forks lie between this process and the first one that looked."""

    count = 0


@functools.cache
def _count_forks() -> None:
    """Count them from now on; Python has no way to stop that again, so it is done once."""

    def count() -> None:
        _Forks.count += 1

    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=count)
