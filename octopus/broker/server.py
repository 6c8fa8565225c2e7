"""The broker: a listener in front of the table of APIs, and periodic chores."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from heapq import nsmallest
from operator import itemgetter
from typing import Any, Self

from octopus.broker.codes import BrokerError
from octopus.broker.connection import Connection
from octopus.broker.files import descriptors_for_connections
from octopus.broker.limits import Budget
from octopus.broker.node import Node
from octopus.broker.request_faults import RequestFaults
from octopus.broker.settings import BrokerSettings
from octopus.broker.storage import Storage
from octopus.errors import ConfigurationError
from octopus.logs import get_logger

_log = get_logger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted."""


RELIEF = 1.0
"""Seconds after which large requests that do not arrive make room for others."""


class Broker:
    """A single-node broker that speaks the Kafka protocol; a durable buffer for one machine, not a production cluster.

    Everything runs on the event loop that calls `start`; no signal handler is touched. The broker takes over the
    storage and closes it when it stops.

    Attributes:
        faults: Faults on order, for tests.
    """

    def __init__(
        self, storage: Storage, settings: BrokerSettings | None = None, faults: RequestFaults | None = None
    ) -> None:
        self.settings = settings or BrokerSettings()
        self.faults = faults or RequestFaults()
        self._storage = storage
        self._node = Node(storage, self.settings, self.faults)
        limits = self.settings.limits
        self._budget = Budget(limits.max_in_flight_bytes, limits.max_held_share)
        self._room = limits.max_connections  # for connections
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._chores: list[asyncio.Task[None]] = []
        self._is_stopped = False
        self._idle, self._busy = asyncio.Event(), asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        """`host:port` under which clients on this machine reach the broker; only while it runs."""
        assert self._listener is not None, "the broker does not run"
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> str:
        """Recover transactions, listen, and return the address.

        Raises:
            ConfigurationError: The broker cannot listen at this address: its port is taken, for example.
            BrokerError: 56: the disk refused a write of the recovery.
        """
        await self._node.transactions.recover()
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._connect, sock=self._bind(), backlog=BACKLOG)
        self._storage.announce(self.address)
        self._room = min(self.settings.limits.max_connections, descriptors_for_connections())
        chores = self._node.transactions.watch(), self._maintain(), self._relieve()
        self._chores = [loop.create_task(chore) for chore in chores]
        _log.info("the embedded broker (for one machine, not for production clusters) listens on %s", self.address)
        return self.address

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening, let requests end within `grace` seconds (waiting ones end at once), flush and close.

        May be called twice, and without having started.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._listener is not None:
            self._listener.close()
        for chore in self._chores:
            chore.cancel()
        self._node.end_waits()
        for connection in self._connections:
            connection.drain()
        tasks = [task for connection in self._connections for task in connection.tasks()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        await self._storage.end_changes()
        for connection in list(self._connections):
            connection.close()
        for chore in self._chores:
            with suppress(asyncio.CancelledError):
                await chore
        # Transports close in the loop's next steps; a client that does not read is cut off after the grace.
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        for connection in list(self._connections):
            connection.abort()
        self._storage.close()

    def note_stop(self) -> None:
        """Record that `stop` was asked for: running clients then wait instead of starting another broker."""
        self._storage.note_stop()

    def counters(self) -> dict[str, int | dict[str, int]]:
        """Return running totals: connections, bytes, requests by API, errors by API and code."""
        self._node.counters.bytes_in_flight = self._budget.used
        return self._node.counters.snapshot()

    async def until_idle(self, seconds: float | None) -> None:
        """Return when no client has been connected for `seconds`; never for None."""
        while True:
            await self._idle.wait()
            try:
                async with asyncio.timeout(seconds):
                    await self._busy.wait()
            except TimeoutError:
                return

    def _bind(self) -> socket.socket:
        """Listen; on a free port, on the one that clients of a former broker of this directory know, if it is free."""
        last = self._storage.last_address
        if self.settings.port == 0 and last is not None:
            with suppress(OSError, ValueError):
                return self._listen(int(last.rpartition(":")[2]))
        try:
            return self._listen(self.settings.port)
        except (OSError, OverflowError) as error:
            where = f"{self.settings.host}:{self.settings.port}"
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(
                f"The broker cannot listen on {where}: {reason}. Choose another port or host (broker.port, broker.host)."
            ) from error

    def _listen(self, port: int) -> socket.socket:
        # One address only: with port 0 two families of "localhost" would get different ports.
        found = socket.getaddrinfo(self.settings.host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)  # a port that two have bound is only refused to the second one here
        except OSError:
            listener.close()
            raise
        return listener

    def _connect(self) -> asyncio.Protocol:
        counters = self._node.counters
        if len(self._connections) >= self._room:
            self._close_idle(1 + self._room // 64)
        if len(self._connections) >= self._room:
            counters.connections_refused += 1
            return _Refusal()
        address = self.settings.advertised_host, self.settings.advertised_port
        connection = Connection(self._node, self._budget, address, self._disconnect)
        self._connections.add(connection)
        counters.connections_total += 1
        counters.connections_open = len(self._connections)
        self._idle.clear()
        self._busy.set()
        return connection

    def _close_idle(self, count: int) -> None:
        """Make room for others: clients connect again when they have something to ask."""
        idle = [(idleness, each) for each in self._connections if (idleness := each.idleness) is not None]
        for _, connection in nsmallest(count, idle, key=itemgetter(0)):
            connection.close()
            self._connections.discard(connection)
            self._node.counters.connections_spared += 1

    def _disconnect(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._node.counters.connections_open = len(self._connections)
        if not self._connections:
            self._busy.clear()
            self._idle.set()

    async def _relieve(self) -> None:
        while True:
            await asyncio.sleep(RELIEF)
            self._budget.relieve()

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self.settings.maintenance_interval)
            try:
                await self._node.maintain()
            except (BrokerError, OSError) as error:
                _log.warning("maintenance will be tried again: %s", error)


async def serve(
    broker: Broker,
    stop: asyncio.Event,
    *,
    on_ready: Callable[[str], object] = lambda address: None,
    idle_exit: float | None = None,
    grace: float = 5.0,
) -> None:
    """Run a broker until `stop` is set, or until no client was connected for `idle_exit` seconds.

    Args:
        broker: Not started yet; stopped on return, also after an error.
        stop: Ends the broker; set it from the broker's own loop.
        on_ready: Called with the address once clients are answered.
        idle_exit: Seconds without any connection after which to stop; None for never.
        grace: Seconds that requests may take to end.
    """
    try:
        on_ready(await broker.start())
        ends: list[asyncio.Task[Any]] = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(broker.until_idle(idle_exit)),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
    finally:
        await broker.stop(grace)


class _Refusal(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
