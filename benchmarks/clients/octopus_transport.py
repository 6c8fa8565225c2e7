"""The transport's consumer by itself: what a record costs us before the worker sees it."""

import asyncio
import uuid
from collections.abc import Collection

import uvloop

from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task
from octopus import config
from octopus.events import TopicPartition
from octopus.transports.base import Chunk, Consumer
from octopus.transports.opening import connect, consumer_options


def run(task: Task) -> dict[str, float]:
    """Consume the topic from its beginning."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(consume(task))


async def consume(task: Task) -> dict[str, float]:
    """Fetch 500 records a turn and read each value."""
    settings = config.load({"brokers": task.brokers, "consumer": task.options.get("consumer", {})})
    transport = connect(settings)
    await transport.open()
    options = consumer_options(settings.consumer, settings.worker)
    consumer = transport.consumer(f"bench-{uuid.uuid4().hex}", [task.topic], **options)
    listener = FromBeginning(consumer)
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop
    await consumer.start(listener)
    while not watch.is_done:
        for chunk in await consumer.fetch(listener.mine, max_records=500, timeout=1.0):
            assert isinstance(chunk, Chunk), chunk
            for record in chunk.records:
                record.value  # noqa: B018 - what a decoder would read
                seen += 1
        if seen >= stop:
            stop = watch.mark(seen)
    await consumer.stop()
    return watch.figures()


class FromBeginning:
    """Starts every partition at its beginning."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.mine: set[TopicPartition] = set()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take partitions."""
        await self._consumer.seek(await self._consumer.offsets(partitions, "earliest"))
        self.mine |= set(partitions)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Give partitions back."""
        self.mine -= set(partitions)

    lost = revoked
