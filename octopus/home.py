"""Where clients live: the event loop and the process that opened them. Used from elsewhere they would hang or harm others."""

import asyncio
import os
from asyncio import _get_running_loop

from octopus.errors import ConfigurationError

_process = os.getpid


class Home:
    """The running event loop and this process, remembered when something is opened."""

    __slots__ = ("loop", "process")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()

    def is_here(self) -> bool:
        """Tell whether this is that loop, in that process. Costs 0.1 µs: publishing asks it for each event."""
        return _get_running_loop() is self.loop and _process() == self.process

    @property
    def was_forked(self) -> bool:
        """Whether this is a copy of that process: sockets are shared with it, threads and tasks stayed behind."""
        return _process() != self.process

    def check(self, what: str, instead: str) -> None:
        """Refuse to be used from elsewhere.

        Args:
            what: Begins the sentence: whose home this is.
            instead: What to do elsewhere; a whole sentence or more.

        Raises:
            ConfigurationError: This is another process, or another event loop.
        """
        if not self.is_here():
            raise elsewhere(what, self.process, instead)


def elsewhere(what: str, process: int, instead: str) -> ConfigurationError:
    """Return what is wrong with using something where it was not opened.

    Args:
        what: Begins the sentence.
        process: The one that opened it.
        instead: What to do here; a whole sentence or more.
    """
    if process != _process():
        reason = (
            f"was opened by process {process}, of which this one, {_process()}, is a fork: no connection survives that"
        )
    else:
        reason = "was opened in another event loop than this call comes from"
    return ConfigurationError(f"{what} {reason}. {instead}")
