"""Patience with a broker that throttles (KIP-219).

aiokafka does not read what an answer says about it: it sends at once into a connection that the broker does not read, and takes
the silence for a time-out if it lasts long enough. Here what comes next waits as long as it was told.
"""

import asyncio

from octopus.logs import get_logger
from octopus.transports.kafka.client_name import ClientName

logger = get_logger("octopus.transports")

SAY_AGAIN = 60.0
"""Seconds until it is said again that a broker throttles."""


class Throttle:
    """Holds back the requests of one connection.

    Args:
        name: The client's.
        where: The broker's address.

    Attributes:
        gate: What requests wait for; None when they need not.
    """

    def __init__(self, name: ClientName, where: str) -> None:
        self._name = name
        self._where = where
        self.gate: asyncio.Event | None = None
        self._until: asyncio.TimerHandle | None = None

    def note(self, milliseconds: int) -> None:
        """Hold back requests for so long, from now on: the time that they may take begins after that."""
        if milliseconds <= 0:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._name.throttled_at >= SAY_AGAIN:
            self._name.throttled_at = now
            logger.info("%s throttles %s: a quota is used up", self._where, self._name)
        until = now + milliseconds / 1000
        if self._until is not None:
            until = max(until, self._until.when())
            self._until.cancel()
        self.gate = self.gate or asyncio.Event()
        self._until = loop.call_at(until, self._open)

    def _open(self) -> None:
        gate, self.gate, self._until = self.gate, None, None
        if gate is not None:
            gate.set()

    def close(self) -> None:
        """Hold back nothing more: what waits to be sent learns that there is no connection."""
        if self._until is not None:
            self._until.cancel()
            self._open()
