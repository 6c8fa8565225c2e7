"""A bad network: a TCP proxy that delays, throttles, corrupts and cuts, and heals again.

    async with TcpProxy("127.0.0.1:9092") as proxy:
        proxy.delay = 0.03              # each way: a round trip of 60 ms
        proxy.cut("to_server")          # what the client says gets lost; the answers to what it said before still come
        proxy.heal()

Kafka clients connect again to the address that a broker *advertises*. So the broker behind a proxy must advertise the
proxy: `BrokerSettings(advertised_port=…)`, `EmbeddedBroker(advertised_port=…)`, or Kafka's `advertised.listeners`.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from typing import Literal, Self

Direction = Literal["to_server", "to_client"]
DIRECTIONS: tuple[Direction, ...] = ("to_server", "to_client")

CHUNK = 65_536
HELD = 64
"""Chunks on the way in one direction of one connection; then the sender is made to wait, as TCP does."""


class TcpProxy:
    """Stands between clients and one server. Lives in the event loop that starts it.

    A cut holds bytes back instead of dropping them, and delivers them when the network heals: what TCP's own
    retransmission makes of a partition. A connection that shall not survive is ended with `reset`.

    Args:
        target: `host:port` of the server; it need not run yet.
        port: Port to listen on, on loopback; 0 takes a free one.
        seed: Of the losses, so that a run can be repeated.

    Attributes:
        target: Where new connections go; may be changed.
        delay: Seconds each byte takes, each way.
        jitter: Up to so many seconds more, at random; order is kept.
        loss: Share of chunks, 0 to 1, that arrive `loss_delay` later, as a lost packet that is sent again.
        loss_delay: Seconds.
        rate: Bytes per second each way and connection; 0 for no limit.
        transform: Called with the direction and the bytes, returns what is passed on instead: for corruption.
        refusing: Whether new connections are ended at once.
        connections: How many were accepted so far.
    """

    def __init__(self, target: str, *, port: int = 0, seed: int = 0) -> None:
        self.target = target
        self.delay = self.jitter = self.loss = 0.0
        self.loss_delay = 0.2
        self.rate = 0.0
        self.transform: Callable[[Direction, bytes], bytes] | None = None
        self.refusing = False
        self.connections = 0
        self._port = port
        self._chance = random.Random(seed)
        self._gates: dict[Direction, asyncio.Event] = {}
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> str:
        """Listen on loopback and return `host:port`."""
        for direction in DIRECTIONS:
            self._gates[direction] = asyncio.Event()
            self._gates[direction].set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self.address

    async def stop(self) -> None:
        """End every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._links]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self._port}"

    def cut(self, *directions: Direction) -> None:
        """Let nothing through any more, in the given directions or both. No side is told: connections stay open."""
        for direction in directions or DIRECTIONS:
            self._gates[direction].clear()

    def heal(self) -> None:
        """Let everything through again, at full speed; what was held back is delivered."""
        self.delay = self.jitter = self.loss = self.rate = 0.0
        self.transform = None
        self.refusing = False
        for gate in self._gates.values():
            gate.set()

    def reset(self) -> None:
        """End every connection as a crashed host would (RST); new ones are accepted."""
        for writers in self._links.values():
            for writer in writers:
                _abort(writer)

    # ── one connection ────────────────────────────────────────────────────────────────────────────────────────────

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._links[task] = (writer,)
        try:
            if not self.refusing:
                await self._link(task, reader, writer)
        except OSError:
            pass  # the other side is gone, or not there yet: the client sees its connection end
        except asyncio.CancelledError:
            pass  # stop() cancels; a server's own task that ends cancelled would be reported as a failure
        finally:
            for each in self._links.pop(task):
                _abort(each)

    async def _link(self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        self._links[task] = (writer, server_writer)
        pumps = [
            asyncio.ensure_future(self._pump("to_server", reader, server_writer)),
            asyncio.ensure_future(self._pump("to_client", server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes one way. Reading and writing are apart: a delay must not lower the throughput."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD)
        carrying = asyncio.ensure_future(self._carry(direction, held, writer))
        loop = asyncio.get_running_loop()
        due = 0.0
        try:
            while chunk := await reader.read(CHUNK):
                due = max(due, loop.time() + self._travel_time())
                await held.put((due, chunk))
            await held.put((due, b""))
            await carrying
        finally:
            carrying.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await carrying

    async def _carry(
        self, direction: Direction, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await held.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await self._gates[direction].wait()
            if not chunk:
                return
            if self.transform is not None:
                chunk = self.transform(direction, chunk)
            if self.rate:
                await asyncio.sleep(len(chunk) / self.rate)
            writer.write(chunk)
            await writer.drain()

    def _travel_time(self) -> float:
        lost = self.loss_delay if self.loss and self._chance.random() < self.loss else 0.0
        return self.delay + self._chance.random() * self.jitter + lost


def free_port() -> int:
    """Return a TCP port on loopback that is free at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _abort(writer: asyncio.StreamWriter) -> None:
    # lingering for 0 s makes close send RST: the other side learns at once, even when a gate held its bytes
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
