"""Health endpoints of several worker processes at once: asks each of them, and names those in trouble.

The process that keeps the workers serves this in a thread: it does nothing else, so a worker that hangs holds up no answer.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine, Iterator
from http import HTTPStatus
from typing import Any

import msgspec

from octopus.config import WorkerSettings
from octopus.worker.endpoints import Endpoints

ANSWER_TIME = 4.0
"""Seconds that a worker has for an answer; less than orchestrators wait for ours."""

_STATUS = re.compile(rb"HTTP/1\.\d (\d{3}) ")
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where those are reached that listen everywhere


@contextlib.contextmanager
def joint_health(settings: WorkerSettings, count: int) -> Iterator[None]:
    """Answer for workers on `health_port`, as long as the block runs.

    Args:
        settings: With `health_port`. Nothing is answered where it is not set, or is 0: then each worker takes a free one.
        count: How many workers there are; the first one listens on the port after it.
    """
    if not settings.health_port:
        yield
        return
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    serving = threading.Thread(
        target=_run, args=(loop, _serve(settings, count, ended)), name="octopus-health", daemon=True
    )
    serving.start()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # it could not listen, and has ended
            loop.call_soon_threadsafe(ended.set)
        serving.join()


class JointHealth:
    """Answers questions about workers that answer for themselves.

    Args:
        host: Where they listen.
        ports: One for each, the first worker's first.
    """

    def __init__(self, host: str, ports: range) -> None:
        self._host = _ANY.get(host, host)
        self._ports = ports

    async def why_not_live(self) -> list[str]:
        """Return a sentence for each that hangs. One that is not up is started again in any case."""
        return await self._troubles("/live", absent=None)

    async def why_not_ready(self) -> list[str]:
        """Return a sentence for each that does not do its work now."""
        return await self._troubles("/ready", absent="is not up")

    async def status(self) -> bytes:
        """Return a list of all workers with their statuses; null for one that does not answer."""
        answers = await asyncio.gather(*(self._ask(port, "/status") for port in self._ports))
        workers = [
            {"worker": number, "status": msgspec.Raw(body) if code == HTTPStatus.OK else None}
            for number, (code, body) in enumerate(answers, 1)
        ]
        return msgspec.json.encode({"workers": workers})

    async def _troubles(self, path: str, absent: str | None) -> list[str]:
        troubles = []
        answers = await asyncio.gather(*(self._ask(port, path) for port in self._ports))
        for number, (code, body) in enumerate(answers, 1):
            match code:
                case HTTPStatus.OK:
                    continue
                case HTTPStatus.SERVICE_UNAVAILABLE:
                    said = body.decode("utf-8", "replace").splitlines()
                case None:
                    said = [absent] if absent else []
                case _:
                    said = [f"does not answer within {ANSWER_TIME:g} s"]
            troubles += [f"worker {number}: {each}" for each in said]
        return troubles

    async def _ask(self, port: int, path: str) -> tuple[int | None, bytes]:
        """Return a worker's code and body: None when it does not listen, 0 when it does not answer."""
        try:
            async with asyncio.timeout(ANSWER_TIME):
                reader, writer = await asyncio.open_connection(self._host, port)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
                    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
                finally:
                    writer.close()
        except TimeoutError:
            return 0, b""
        except OSError:
            return None, b""
        found = _STATUS.match(head)  # another program may have the port
        return (int(found[1]), body) if found else (None, b"")


async def _serve(settings: WorkerSettings, count: int, ended: asyncio.Event) -> None:
    assert settings.health_port
    first = settings.health_port + 1
    endpoints = Endpoints(JointHealth(settings.health_host, range(first, first + count)))
    async with endpoints.listening(settings.health_host, settings.health_port, "health of all workers") as is_listening:
        if is_listening:
            await ended.wait()


def _run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None]) -> None:
    try:
        loop.run_until_complete(serving)
    finally:
        loop.close()
