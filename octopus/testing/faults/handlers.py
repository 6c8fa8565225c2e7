"""What handlers do at their worst, to be called from a handler under test."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import NoReturn


class Mischief(BaseException):
    """No `Exception`: what a handler raises when even its framework must not take it for a failure."""


async def hang() -> NoReturn:
    """Never return; end when cancelled."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody resolves this future")


async def hang_on(seconds: float) -> None:
    """Take so many seconds and ignore every cancellation meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


def block(seconds: float) -> None:
    """Block the event loop for so many seconds."""
    time.sleep(seconds)


def die() -> NoReturn:
    """End this process at once, as a power cut would (SIGKILL)."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nothing outlives SIGKILL")


def first_time(mark: Path) -> bool:
    """Tell whether this is the first call for a file name, over all processes: for handlers that fail once.

    Args:
        mark: A file that does not exist yet; it remembers.
    """
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
