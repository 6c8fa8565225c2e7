"""AsyncFast under amgi-aiokafka: a channel with a pydantic payload."""

import asyncio
import uuid

from amgi_aiokafka import Server
from asyncfast import AsyncFast

from benchmarks.models import FileEvent
from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task, finish


def run(task: Task) -> None:
    """Consume the topic from its beginning."""
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop
    app = AsyncFast()

    @app.channel(task.topic)
    async def handle(event: FileEvent) -> None:
        nonlocal seen, stop
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)
            if watch.is_done:
                finish(watch.figures())

    async def serve() -> None:
        server = Server(
            app,
            task.topic,
            bootstrap_servers=task.brokers,
            group_id=f"bench-{uuid.uuid4().hex}",
            auto_offset_reset="earliest",
        )
        await server.serve()

    asyncio.run(serve())
