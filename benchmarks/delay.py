"""A link with a round-trip time: forwards connections and holds every byte back for half of it in each direction.

    python -m benchmarks.delay LISTEN_PORT TARGET_PORT ROUND_TRIP_SECONDS

Bandwidth is not limited. Ends with its parent.
"""

import asyncio
import contextlib
import os
import sys
from collections import deque

CHUNK = 256 * 1024


async def serve(listen: int, target: int, delay: float) -> None:
    """Forward until the parent is gone."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, limit=CHUNK)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer, delay), pump(far_reader, writer, delay))

    parent = os.getppid()
    async with await asyncio.start_server(accept, "127.0.0.1", listen, limit=CHUNK):
        while os.getppid() == parent:
            await asyncio.sleep(0.5)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Copy one direction, each chunk `delay` seconds after it came."""
    loop = asyncio.get_running_loop()
    held: deque[tuple[float, bytes]] = deque()
    more = asyncio.Event()

    async def release() -> None:
        while True:
            if not held:
                more.clear()
                await more.wait()
            due, chunk = held[0]
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            held.popleft()
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()

    releasing = asyncio.create_task(release())
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            held.append((loop.time() + delay, chunk))
            more.set()
    held.append((loop.time() + delay, b""))
    more.set()
    with contextlib.suppress(OSError):
        await releasing
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 2))
