"""Quix Streams: its JSON deserializer and serializer, `apply` and `to_topic`, no topic creation. Ends when it is killed."""

import uuid
from typing import Any

from quixstreams import Application

from benchmarks.task import Task


def run(task: Task) -> None:
    """Transform the topic from its beginning."""

    def handle(event: dict[str, Any]) -> dict[str, Any]:
        event["shift"] = "seen"
        return event

    application = Application(
        broker_address=task.brokers,
        consumer_group=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        loglevel="ERROR",
        auto_create_topics=False,
        consumer_extra_config={"fetch.queue.backoff.ms": 5, "queued.min.messages": 500_000},
    )
    frame = application.dataframe(application.topic(task.topic, value_deserializer="json"))
    frame.apply(handle).to_topic(application.topic(task.options["to"], value_serializer="json"))
    application.run()
