"""kstreams: raw bytes, no commit; fetched one at a time, or 500 where the case says so."""

import asyncio
import uuid

from kstreams import ConsumerRecord, GetMany, create_engine
from kstreams.backends import Kafka

from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task, finish


def run(task: Task) -> None:
    """Consume the topic from its beginning."""
    asyncio.run(consume(task))


async def consume(task: Task) -> None:
    """Run one stream until the stopwatch is done."""
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop
    engine = create_engine(title="bench", backend=Kafka(bootstrap_servers=[task.brokers]))

    @engine.stream(
        task.topic,
        group_id=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        get_many=GetMany(max_records=500, timeout_ms=1000) if task.options.get("many") else None,
    )
    async def handle(record: ConsumerRecord) -> None:
        nonlocal seen, stop
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)

    await engine.start()
    while not watch.is_done:
        await asyncio.sleep(0.02)
    finish(watch.figures())
