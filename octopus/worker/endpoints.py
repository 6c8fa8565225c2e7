"""`/live`, `/ready` and `/status` over HTTP/1.1; the answers are a caller's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Protocol

from octopus.logs import get_logger
from octopus.text import visible

logger = get_logger("octopus.worker")

REQUEST_BYTES = 8192
"""Most of a request, headers included."""

REQUEST_TIME = 5.0
"""Seconds a request may take to arrive, and an answer to leave."""

CONNECTIONS = 32
"""Open at once; who comes when there are as many is turned away."""


class Questions(Protocol):
    """What probes ask."""

    async def why_not_live(self) -> list[str]:
        """Return a sentence for each reason to start again."""

    async def why_not_ready(self) -> list[str]:
        """Return a sentence for each reason why the work is not done now."""

    async def status(self) -> bytes:
        """Return the status as JSON."""


class Endpoints:
    """Answers requests, one on each connection.

    Args:
        questions: Has the answers.
    """

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._connections: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int, whose: str) -> AsyncIterator[bool]:
        """Answer while the block lasts; give whether that is possible.

        Where it is not, because the port is taken or the address is none of this machine, it is logged: handling events matters
        more than being watched, and a probe will notice.

        Args:
            host: Where to listen.
            port: Where; 0 takes a free one.
            whose: Begins the log's line of where they are.
        """
        try:
            server = await asyncio.start_server(self.serve, host, port, limit=REQUEST_BYTES)
        except (OSError, OverflowError) as error:
            logger.error("no health endpoints on %s:%d: %s", host, port, error)  # noqa: TRY400
            yield False
            return
        logger.info("%s: http://%s:%d/ready", whose, *server.sockets[0].getsockname()[:2])
        try:
            yield True
        finally:
            server.close()
            await self._close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # A client that hangs up or dawdles gets no answer, and costs nothing more.
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                if len(self._connections) <= CONNECTIONS:
                    async with asyncio.timeout(REQUEST_TIME):
                        writer.write(await self._respond(reader))
                        await writer.drain()
        except asyncio.CancelledError:
            pass  # by `_close`; asyncio's server would report it as a failure
        finally:
            self._connections.discard(task)
            writer.close()

    async def _close(self) -> None:
        """Cut off who is still there."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections)

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too large.\n")
        match request.split(b"\r\n", 1)[0].split(b" "):
            case [method, target, version] if version.startswith(b"HTTP/1."):
                if method != b"GET":
                    return _response(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered.\n", "Allow: GET\r\n")
            case _:
                return _response(HTTPStatus.BAD_REQUEST, "This is no HTTP/1.1 request.\n")
        match target.split(b"?", 1)[0]:
            case b"/live":
                return _verdict(await self._questions.why_not_live())
            case b"/ready":
                return _verdict(await self._questions.why_not_ready())
            case b"/status":
                body = (await self._questions.status()).decode()
                return _response(HTTPStatus.OK, body, content_type="application/json")
            case _:
                return _response(HTTPStatus.NOT_FOUND, "There are /live, /ready and /status.\n")


def _verdict(troubles: list[str]) -> bytes:
    if troubles:
        return _response(HTTPStatus.SERVICE_UNAVAILABLE, "".join(f"{visible(trouble)}\n" for trouble in troubles))
    return _response(HTTPStatus.OK, "ok\n")


def _response(status: HTTPStatus, body: str, headers: str = "", content_type: str = "text/plain") -> bytes:
    content = body.encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n{headers}\r\n"
    )
    return head.encode() + content
