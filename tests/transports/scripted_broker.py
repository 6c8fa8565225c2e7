"""A broker that answers ApiVersions and then does exactly what a test says, byte by byte, on TLS or without."""

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest

Script = Callable[["Dialogue"], Awaitable[None]]


class Dialogue:
    """One connection, after ApiVersions.

    Attributes:
        reader: What the client sends.
        writer: What it gets.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Read a request; return it without its size."""
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        return await self.reader.readexactly(size)

    async def asked(self) -> int:
        """Read a request; return its correlation id."""
        correlation: int = struct.unpack_from(">i", await self.request(), 4)[0]
        return correlation

    async def send(self, data: bytes, *pieces: int) -> None:
        """Send bytes, split into pieces of these sizes and the rest, each in a packet of its own."""
        at = 0
        for piece in (*pieces, len(data)):
            self.writer.write(data[at : at + piece])
            await self.writer.drain()
            await asyncio.sleep(0)
            at += piece

    async def ended(self) -> None:
        """Wait until the client hangs up."""
        while await self.reader.read(65536):
            pass


class ScriptedBroker:
    """Runs a script for each connection.

    Args:
        script: What to do.
        context: For TLS.
        also: Bytes sent together with the answer to ApiVersions.

    Attributes:
        errors: What scripts raised.
    """

    def __init__(self, script: Script, context: ssl.SSLContext | None = None, also: bytes = b"") -> None:
        self._script = script
        self._context = context
        self._also = also
        self.errors: list[BaseException] = []
        self.port = 0

    async def __aenter__(self) -> "ScriptedBroker":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        assert self.errors == []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialogue = Dialogue(reader, writer)
        try:
            correlation = await dialogue.asked()
            known = ((FetchRequest.API_KEY, 0, 11), (ProduceRequest.API_KEY, 0, 7), (18, 0, 0))
            versions = b"".join(struct.pack(">hhh", *each) for each in known)
            writer.write(framed(struct.pack(">ihi", correlation, 0, len(known)) + versions) + self._also)
            await self._script(dialogue)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            writer.close()


def framed(*contents: bytes) -> bytes:
    """Put sizes before contents."""
    return b"".join(struct.pack(">i", len(content)) + content for content in contents)


def fetch_request() -> Any:
    """Return a request for records of one partition."""
    return FetchRequest(
        max_wait_time=10,
        min_bytes=1,
        max_bytes=2**20,
        isolation_level=0,
        topics=[("topic", [(0, 0, 2**20)])],
        rack_id="",
    )


def produce_request() -> Any:
    """Return a request that stores a batch, in two pieces, in one partition."""
    pieces: Any = (b"head", b"records")
    return ProduceRequest(transactional_id=None, required_acks=-1, timeout=1000, topics=[("topic", [(0, pieces)])])


def fetch_answer(correlation: int, *records: bytes) -> bytes:
    """Return the frame of an answer to it, without its size."""
    rows: Sequence[Any] = [(number, 0, 9, 9, 0, None, -1, data) for number, data in enumerate(records)]
    return struct.pack(">i", correlation) + bytes(FetchResponse_v11(0, 0, 0, [("topic", rows)]).encode())
