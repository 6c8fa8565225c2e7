"""A producer that connects when something is published, because most invocations publish nothing."""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from octopus.config import Settings
from octopus.errors import ConnectionFailed, TransportError
from octopus.events import Published
from octopus.logs import get_logger
from octopus.transports.base import Outgoing, Producer
from octopus.transports.opening import connect, make_producer
from octopus.transports.queueing import Backlog, Queued, first_of

logger = get_logger("octopus.triggers")

STALE_AFTER = 60.0
"""Seconds without use after which a connection counts as dead: a function that is frozen does not notice that its
sockets are closed, and finding out by a time-out may take longer than the invocation has."""

FAREWELL = 1.0
"""Seconds for closing a connection that may be dead."""


class LazyProducer:
    """Publishes through a connection that is made on first use and made again when it has grown stale.

    Args:
        settings: Their brokers go before those of the event.
        client_id: Our name in the broker's logs.

    Attributes:
        bootstrap_servers: The cluster that the event came from; used when the settings name none.
    """

    def __init__(self, settings: Settings, client_id: str) -> None:
        self.bootstrap_servers: tuple[str, ...] = ()
        self._settings = settings
        self._client_id = client_id
        self._connecting = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._producer: Producer | None = None
        self._used_at = 0.0
        self._backlog = Backlog()
        self._passing_on: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Do nothing: the first message connects."""

    async def stop(self) -> None:
        """Deliver the queued messages, then close."""
        if self._passing_on is not None:
            await asyncio.wait([self._passing_on])
        self._producer = None
        await self._stack.aclose()

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Queue messages, once there is a connection."""
        producer, now = self._producer, asyncio.get_running_loop().time()
        if producer is not None and not self._backlog and now - self._used_at <= STALE_AFTER:
            self._used_at = now
            return producer.queue(messages)
        future = self._backlog.add(messages)
        if self._passing_on is None and self._backlog:
            self._passing_on = asyncio.create_task(self._pass_on())
        return future

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Queue one message, as `queue`."""
        return first_of(self.queue((message,)))

    @property
    def queued_bytes(self) -> int:
        """Bytes of the keys and values that are queued or on their way."""
        return self._backlog.size_bytes + (self._producer.queued_bytes if self._producer is not None else 0)

    async def send(self, message: Outgoing) -> Published:
        """Publish one message; return when it is acknowledged."""
        return await (await self._connected()).send(message)

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish many in order; return when all are acknowledged."""
        return await (await self._connected()).send_many(messages)

    async def _pass_on(self) -> None:
        try:
            producer = await self._connected()
        except Exception as error:  # noqa: BLE001 - each who waits gets it
            self._backlog.fail(error)
        except asyncio.CancelledError:
            self._backlog.fail(ConnectionFailed("The function's producer was closed while it connected."))
            raise
        else:
            self._backlog.pass_on(producer.queue)
        finally:
            self._passing_on = None

    async def _connected(self) -> Producer:
        async with self._connecting:
            now = asyncio.get_running_loop().time()
            if self._producer is not None and now - self._used_at > STALE_AFTER:
                await self._drop()
            if self._producer is None:
                self._producer = await self._connect()
            self._used_at = now
            return self._producer

    async def _connect(self) -> Producer:
        settings = self._settings
        if not settings.brokers:
            if not self.bootstrap_servers:
                raise TransportError(
                    "Nothing can be published: no brokers are configured (OCTOPUS_BROKERS) and the event names none."
                )
            settings = msgspec.structs.replace(settings, brokers=self.bootstrap_servers)
        async with AsyncExitStack() as stack:
            transport = connect(settings, client_id=self._client_id)
            await transport.open()
            stack.push_async_callback(transport.close)
            producer = make_producer(transport, settings, reports_outages=True)
            await producer.start()
            stack.push_async_callback(producer.stop)
            self._stack = stack.pop_all()
        return producer

    async def _drop(self) -> None:
        logger.debug("connecting again: nothing was published for %g s", STALE_AFTER)
        self._producer = None
        with contextlib.suppress(TransportError, TimeoutError, OSError):
            async with asyncio.timeout(FAREWELL):
                await self._stack.aclose()
