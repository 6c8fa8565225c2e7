"""Chores: upkeep in the background. A refusal of the disk is logged, and the chore tried again the next time."""

import asyncio
from collections.abc import Callable
from functools import partial

from octopus.broker.codes import BrokerError
from octopus.broker.log import Log
from octopus.broker.log.compaction import Compaction
from octopus.logs import get_logger

_log = get_logger(__name__)


def attempt(action: Callable[[], object], what: str) -> None:
    """Run `action`; log that `what` failed if the disk refuses."""
    try:
        action()
    except (BrokerError, OSError) as error:
        _log.warning("%s failed and will be tried again: %s", what, error)


class Compactions:
    """Compactions, one a log at a time: in a thread where there is an event loop, and then shown when they are done."""

    def __init__(self) -> None:
        self._running: dict[Log, asyncio.Future[None]] = {}

    def start(self, log: Log, now: int) -> None:
        """Compact a log if it is worth it; `now` in ms.

        Raises:
            BrokerError: 56 the disk refused, 3 the log was deleted.
            OSError: The disk refused.
        """
        if log in self._running:
            return
        compaction = log.compaction(now)
        if compaction is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            compaction.run()
            log.swap(compaction)
            return
        running = self._running[log] = loop.run_in_executor(None, compaction.run)
        running.add_done_callback(partial(self._end, log, compaction))

    def _end(self, log: Log, compaction: Compaction, running: asyncio.Future[None]) -> None:
        del self._running[log]
        if not running.cancelled():

            def swap() -> None:
                running.result()
                log.swap(compaction)

            attempt(swap, "compaction")
