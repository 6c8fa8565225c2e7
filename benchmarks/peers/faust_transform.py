"""Faust (faust-streaming): an agent whose sink is the output topic; 500 records a poll, no web server, no leader topic. Ends when
it is killed."""

import logging
import uuid
from collections.abc import AsyncIterator
from typing import Any

import faust

from benchmarks.task import Task


def run(task: Task) -> None:
    """Transform the topic from its beginning."""
    app = faust.App(
        f"bench-{uuid.uuid4().hex}",
        broker=f"kafka://{task.brokers}",
        broker_max_poll_records=500,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        web_enabled=False,
        topic_disable_leader=True,
        value_serializer="json",
    )

    @app.agent(app.topic(task.topic), sink=[app.topic(task.options["to"])])
    async def handle(events: faust.StreamT) -> AsyncIterator[Any]:
        async for event in events:
            event["shift"] = "seen"
            yield event

    faust.Worker(app, loglevel=logging.ERROR, redirect_stdouts=False).execute_from_commandline()
