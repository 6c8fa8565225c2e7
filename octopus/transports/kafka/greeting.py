"""The first answer of a cluster: who names a wrong port waits for it not too long, and is told that they wait."""

import asyncio
import contextlib
from collections.abc import Iterator

from octopus.logs import get_logger

logger = get_logger("octopus.transports")

FIRST_ANSWER = 15.0
"""Seconds for the first answer of a cluster: who names a wrong port should not wait for the time-out of a request."""

SAY_WAITING = 1.5
"""Seconds after which it is said that the first answer is waited for."""


class Greeting:
    """What all clients of a cluster know of its first answer.

    Attributes:
        is_over: Whether there was one. From then on silence is an outage, and others speak of it.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._is_said = False

    @contextlib.contextmanager
    def said(self, where: str, patience: float) -> Iterator[None]:
        """Say once, if a block lasts, that the first answer is waited for, for so many seconds at most."""
        timer = asyncio.get_running_loop().call_later(SAY_WAITING, self._say, where, patience)
        try:
            yield
        finally:
            timer.cancel()

    def _say(self, where: str, patience: float) -> None:
        if not (self.is_over or self._is_said):
            self._is_said = True
            logger.warning("waiting for an answer of %s, for up to %.0f s", where, patience)
