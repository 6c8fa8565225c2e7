"""A client that speaks bytes, for what no real client would send."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from octopus.broker.server import Broker
from octopus.broker.wire import Part, Reader, Writer

Start = Callable[..., Awaitable[Broker]]
"""Starts a broker with settings of the test's choice."""


class WireClient:
    """One connection to a broker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._correlation = 0

    @classmethod
    async def connect(cls, address: str) -> "WireClient":
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host.strip("[]"), int(port)))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def ask(self, key: int, version: int, body: Writer | None = None) -> Reader:
        """Send a request and return a reader of the answer's body."""
        correlation = await self.put(key, version, body)
        answered, answer = await self.take()
        assert answered == correlation
        return answer

    async def put(self, key: int, version: int, body: Writer | None = None) -> int:
        self._correlation += 1
        await self.send(frame(key, version, self._correlation, body))
        return self._correlation

    async def take(self, timeout: float = 5.0) -> tuple[int, Reader]:
        async with asyncio.timeout(timeout):
            (size,) = struct.unpack(">i", await self._reader.readexactly(4))
            reader = Reader(await self._reader.readexactly(size))
        return reader.int32(), reader

    async def raw(self, timeout: float = 5.0) -> bytes:
        async with asyncio.timeout(timeout):
            (size,) = struct.unpack(">i", await self._reader.readexactly(4))
            return await self._reader.readexactly(size)

    async def is_closed(self, timeout: float = 5.0) -> bool:
        """Wait until the broker closes the connection, reading whatever it still says."""
        try:
            async with asyncio.timeout(timeout):
                while await self._reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    async def close(self) -> None:
        self._writer.close()


def frame(key: int, version: int, correlation: int, body: Writer | None = None) -> bytes:
    header = Writer().int16(key).int16(version).int32(correlation).string("wire-client")
    content = content_of(header) + content_of(body or Writer())
    return struct.pack(">i", len(content)) + content


def content_of(writer: Writer) -> bytes:
    parts: list[Part] = writer.frame(0)
    return b"".join(parts)[8:]


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[WireClient]:
    client = await WireClient.connect(address)
    try:
        yield client
    finally:
        await client.close()


async def eventually(condition: Callable[[], bool | Awaitable[bool]], timeout: float = 30.0) -> None:
    """Poll a condition until it is true."""
    async with asyncio.timeout(timeout):
        while True:
            result = condition()
            if await result if isinstance(result, Awaitable) else result:
                return
            await asyncio.sleep(0.005)
