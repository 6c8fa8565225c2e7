"""The first example: files on this machine become events, and handlers act on them.

    octopus run examples/file_events.py:app

With `--watch DIR=files` it also watches a directory itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from octopus import Octopus


class File(msgspec.Struct):
    """What `octopus watch` says about a file, as far as we care."""

    event: str
    path: str
    name: str
    size: int | None = None


@asynccontextmanager
async def first_steps(app: Octopus) -> AsyncIterator[None]:
    """Say what to do, and show at once that it works."""
    print("Events in the topic `files` are printed here. To make some:")
    print("    touch hello.txt                   if this was started with --watch .=files")
    print("    octopus watch . --to files        in another terminal, if not; then touch hello.txt")
    await app.publish("files", {"event": "created", "path": "/example/run-7.h5", "name": "run-7.h5", "size": 2_400_000})
    yield


app = Octopus("file-events", lifespan=first_steps)


@app.on("files")
async def announce(file: File) -> None:
    """Print every event."""
    print(f"{file.event:<8}  {file.path}")


@app.on("files", filter={"event": ["created"], "size": [{"numeric": [">", 1_000_000]}]}, to="transfers")
async def transfer(file: File) -> dict[str, object]:
    """Choose large new files only; what is returned becomes an event of its own."""
    await asyncio.sleep(0.1)
    return {"source": file.path, "bytes": file.size}


@app.on("transfers")
def transferred(task: dict[str, object]) -> None:
    """See the next event in the chain. Handlers need not be async."""
    print(f"transfer  {task['source']} ({task['bytes']:,} bytes)")
