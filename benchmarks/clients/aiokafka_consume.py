"""aiokafka by itself: what its records cost before anybody looks at them."""

import asyncio
import time
import uuid

import aiokafka
import msgspec
import uvloop

from benchmarks.stopwatch import Stopwatch
from benchmarks.structs import FileEvent
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Consume the topic from its beginning."""
    factory = uvloop.new_event_loop if task.options.get("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(consume(task))


async def consume(task: Task) -> dict[str, float]:
    """Read in the way that the case names."""
    consumer = aiokafka.AIOKafkaConsumer(
        task.topic,
        bootstrap_servers=task.brokers,
        group_id=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    watch = Stopwatch(task.warm_up, task.records)
    await consumer.start()
    try:
        if task.options["way"] == "first":
            await consumer.getone()
            return {"seconds_to_first": time.monotonic() - task.spawned}
        await {"getmany": by_turns, "getone": one_by_one, "typed": handled}[task.options["way"]](consumer, watch)
    finally:
        await consumer.stop()
    return watch.figures()


async def by_turns(consumer: aiokafka.AIOKafkaConsumer, watch: Stopwatch) -> None:
    """Take 500 records a turn and do nothing with them."""
    seen, stop = 0, watch.first_stop
    while not watch.is_done:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            seen += len(records)
        if seen >= stop:
            stop = watch.mark(seen)


async def one_by_one(consumer: aiokafka.AIOKafkaConsumer, watch: Stopwatch) -> None:
    """Take one record a turn."""
    seen, stop = 0, watch.first_stop
    while not watch.is_done:
        await consumer.getone()
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)


async def handled(consumer: aiokafka.AIOKafkaConsumer, watch: Stopwatch) -> None:
    """Decode each record and await a handler with it: the least that a framework on aiokafka can do."""
    seen, stop = 0, watch.first_stop
    decode = msgspec.json.Decoder(FileEvent).decode

    async def handle(event: FileEvent) -> None:
        nonlocal seen, stop
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)

    while not watch.is_done:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            for record in records:
                await handle(decode(record.value))
