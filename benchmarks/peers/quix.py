"""Quix Streams: its JSON deserializer (orjson), `sdf.update`, no topic creation."""

import uuid
from typing import Any

from quixstreams import Application

from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task, finish


def run(task: Task) -> None:
    """Consume the topic from its beginning."""
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop

    def handle(event: dict[str, Any]) -> None:
        nonlocal seen, stop
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)
            if watch.is_done:
                finish(watch.figures())

    application = Application(
        broker_address=task.brokers,
        consumer_group=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        loglevel="ERROR",
        auto_create_topics=False,
        consumer_extra_config={"fetch.queue.backoff.ms": 5, "queued.min.messages": 500_000},
    )
    frame = application.dataframe(application.topic(task.topic, value_deserializer="json"))
    frame.update(handle)
    application.run()
