"""Lines of a file or of standard input, in batches, as they come."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

CHUNK_BYTES = 256 * 1024


async def read_lines(source: Path | int, *, most: int, within: float) -> AsyncIterator[list[bytes]]:
    """Yield batches of lines without their ends, the last one also when its end is missing.

    A thread reads, so that a pipe which says nothing for hours does not delay what it said before.

    Args:
        source: A file, or the descriptor of an open one.
        most: Lines of a batch.
        within: Seconds after which lines are handed over though there are fewer.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue(maxsize=4)
    descriptor = os.open(source, os.O_RDONLY) if isinstance(source, Path) else source

    def read() -> None:
        try:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            asyncio.run_coroutine_threadsafe(chunks.put(b""), loop).result()
        except OSError as error:
            asyncio.run_coroutine_threadsafe(chunks.put(error), loop).result()

    # A daemon: nothing can wake it from a read of a silent pipe, and nothing needs to.
    threading.Thread(target=read, name="octopus lines", daemon=True).start()
    waiting: list[bytes] = []
    rest = b""
    deadline: float | None = None
    ended = False
    while not ended:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await chunks.get()
        except TimeoutError:
            chunk = None
        if isinstance(chunk, OSError):
            raise chunk
        if chunk is not None:
            *whole, rest = (rest + chunk).split(b"\n")
            ended = not chunk
            waiting += whole + ([rest] if ended and rest else [])
            deadline = deadline or (loop.time() + within if waiting else None)
        due = ended or (deadline is not None and loop.time() >= deadline)
        while len(waiting) >= most or (due and waiting):
            yield [line.removesuffix(b"\r") for line in waiting[:most]]
            del waiting[:most]
        if due or not waiting:
            deadline = loop.time() + within if waiting else None
