"""FastStream on confluent-kafka: no logger, a pydantic argument, no creation of topics, batches of 500
where the case says so."""

import asyncio
import uuid

from faststream import AckPolicy
from faststream.confluent import KafkaBroker

from benchmarks.models import FileEvent
from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task, finish


def run(task: Task) -> None:
    """Consume the topic from its beginning."""
    asyncio.run(consume(task))


async def consume(task: Task) -> None:
    """Run one subscriber until the stopwatch is done."""
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop
    broker = KafkaBroker(task.brokers, logger=None, allow_auto_create_topics=False)

    subscription = {
        "group_id": f"bench-{uuid.uuid4().hex}",
        "auto_offset_reset": "earliest",
        "ack_policy": AckPolicy.ACK if task.options.get("policy") == "ack" else AckPolicy.ACK_FIRST,
    }

    if task.options.get("batch"):

        @broker.subscriber(task.topic, batch=True, max_records=500, **subscription)
        async def handle_batch(events: list[FileEvent]) -> None:
            nonlocal seen, stop
            seen += len(events)
            if seen >= stop:
                stop = watch.mark(seen)

    else:

        @broker.subscriber(task.topic, **subscription)
        async def handle(event: FileEvent) -> None:
            nonlocal seen, stop
            seen += 1
            if seen >= stop:
                stop = watch.mark(seen)

    await broker.start()
    while not watch.is_done:
        await asyncio.sleep(0.02)
    finish(watch.figures())
