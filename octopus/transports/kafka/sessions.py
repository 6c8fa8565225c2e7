"""A session that ends (KIP-368): the credentials are shown again before, over the same connection.

aiokafka 0.14 authenticates once: when the session ends the broker cuts the connection, and answers in flight are lost.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from octopus.transports.kafka.engine import CloseReason

SASL_REQUESTS = (17, 36)
"""API keys of what may be sent while a session is being renewed."""

EARLIER = (0.75, 0.85)
"""When a session is renewed, as a part of its length: between these, so that a thousand clients do not come at once."""


class Authenticated(Protocol):
    """A connection, as far as its session is concerned."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it lives in."""
        ...

    @property
    def transport(self) -> asyncio.Transport | None:
        """Its socket's; None when it is closed."""
        ...

    @property
    def unanswered(self) -> Any:
        """What was sent: correlation id, request and what waits for the answer."""
        ...

    async def authenticate(self) -> None:
        """Show our credentials."""
        ...

    def remember(self, failure: BaseException | None) -> None:
        """Keep why connecting failed, or forget it."""
        ...

    def close(self, reason: Any = None, exc: BaseException | None = None) -> Any:
        """Close."""
        ...


class Session:
    """How long a connection's credentials are good for, and its renewal.

    Args:
        connection: Whose it is; an open one must not keep itself alive, so this is a way to it: None when it is gone.

    Attributes:
        gate: What requests wait for while it is being renewed; None when it is not.
    """

    def __init__(self, connection: Callable[[], Authenticated | None]) -> None:
        self._connection = connection
        self.gate: asyncio.Event | None = None
        self._listens = False
        self._milliseconds = 0
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Note from now on how long the next session lasts, as answers say."""
        self._milliseconds, self._listens = 0, True

    def stop_listening(self) -> None:
        """Note it no more: the session has begun, or was refused."""
        self._listens = False

    def plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Renew it in time, if it has an end."""
        if self._milliseconds > 0:
            self._timer = loop.call_later(self._milliseconds / 1000 * random.uniform(*EARLIER), self._renew)

    def heard(self, answer: Awaitable[Any]) -> Awaitable[Any]:
        """Return an answer to come, whose word on the session is noted while this listens."""
        return self._note(answer) if self._listens else answer

    async def _note(self, answer: Awaitable[Any]) -> Any:
        response = await answer
        lifetime = getattr(response, "session_lifetime_ms", 0) or 0
        self._milliseconds = max(self._milliseconds, lifetime)
        return response

    def close(self) -> None:
        """Renew it no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _renew(self) -> None:
        connection = self._connection()
        if connection is not None and connection.transport is not None:
            self._renewal = connection.loop.create_task(self._authenticate_again(connection))

    async def _authenticate_again(self, connection: Authenticated) -> None:
        """Let requests in flight finish, then authenticate; new requests wait at the gate meanwhile."""
        gate = self.gate = asyncio.Event()
        try:
            while connection.unanswered:
                # a cancelled request stays queued until the broker has answered it
                last = connection.unanswered[-1][2]
                await (asyncio.sleep(0.005) if last.done() else asyncio.wait([last]))
            if connection.transport is not None:
                await connection.authenticate()
                connection.remember(None)
        except Exception as error:  # noqa: BLE001 - after any error this connection is of no more use
            connection.remember(error)
            connection.close(CloseReason.AUTH_FAILURE, error)
        finally:
            self.gate = None
            gate.set()
