"""Ending in an orderly way before Lambda discards the environment.

Lambda sends SIGTERM only to functions with an extension. So we register one that wants no events, inside of this
process; then there is half a second to leave the lifespan and close connections.

Source: AWS Lambda developer guide, "Lambda Extensions API" and "Lambda execution environment lifecycle".
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

from octopus.logs import get_logger

logger = get_logger("octopus.triggers")

NAME = "octopus"
TIMEOUT = 1.0
"""Seconds for the registration."""


def when_terminated(close: Callable[[], None]) -> None:
    """Call `close` before the environment ends. Outside of Lambda, or of the main thread, do nothing."""
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API", "")
    if not address or threading.current_thread() is not threading.main_thread():
        return
    try:
        identifier = _register(address)
    except (OSError, ValueError) as error:
        logger.info("there will be no SIGTERM before this environment ends: %s", error)
    else:
        threading.Thread(target=_listen, args=(address, identifier), name="octopus extension", daemon=True).start()

    before = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: FrameType | None) -> None:
        try:
            close()
        except Exception:
            logger.exception("while shutting down")
        if callable(before):
            before(number, frame)  # another function of the same module
        logging.shutdown()
        sys.stdout.flush()
        # A plain exit would wait for the runtime's thread, which waits for an invocation that never comes.
        os._exit(0)

    signal.signal(signal.SIGTERM, terminate)


def _register(address: str) -> str:
    lines = _request(
        address,
        "POST /2020-01-01/extension/register",
        f"Lambda-Extension-Name: {NAME}\r\nContent-Type: application/json",
        b'{"events":[]}',
        TIMEOUT,
    )
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "lambda-extension-identifier":
            return value.strip()
    raise ValueError(f"the extension was not registered ({lines[0]})")


def _listen(address: str, identifier: str) -> None:
    # The call says that we are ready; it never returns, because we registered for nothing.
    with contextlib.suppress(OSError, ValueError):
        _request(
            address, "GET /2020-01-01/extension/event/next", f"Lambda-Extension-Identifier: {identifier}", b"", None
        )


def _request(address: str, target: str, header: str, body: bytes, timeout: float | None) -> list[str]:
    """Return status line and headers. (The standard library's client would cost a cold start tens of milliseconds.)"""
    host, _, port = address.partition(":")
    head = (
        f"{target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{header}\r\n\r\n"
    )
    with socket.create_connection((host, int(port or 80)), timeout) as connection:
        connection.sendall(head.encode() + body)
        with connection.makefile("rb") as answer:
            lines = []
            while line := answer.readline().strip():
                lines.append(line.decode("latin-1"))
    if not lines or " 200 " not in lines[0] + " ":
        raise ValueError(f"{target} was answered with {lines[0] if lines else 'nothing'}")
    return lines
