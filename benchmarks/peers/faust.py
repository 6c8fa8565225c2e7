"""Faust (faust-streaming): 500 records a poll, no web server, no leader topic; untyped, or validating `Record`s."""

import logging
import uuid

import faust

from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task, finish


class User(faust.Record, validation=True):
    """Who made a file."""

    id: int
    name: str
    group: str


class Part(faust.Record, validation=True):
    """A piece of a file."""

    name: str
    bytes: int


class FileEvent(faust.Record, validation=True):
    """A file was made."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
    user: User | None = None
    parts: list[Part] | None = None


def run(task: Task) -> None:
    """Consume the topic from its beginning."""
    watch = Stopwatch(task.warm_up, task.records)
    app = faust.App(
        f"bench-{uuid.uuid4().hex}",
        broker=f"kafka://{task.brokers}",
        broker_max_poll_records=500,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        topic_disable_leader=True,
        value_serializer="json",
    )
    topic = app.topic(task.topic, value_type=FileEvent if task.options.get("typed") else None)

    @app.agent(topic)
    async def handle(events: faust.StreamT) -> None:
        seen, stop = 0, watch.first_stop
        async for _ in events:
            seen += 1
            if seen >= stop:
                stop = watch.mark(seen)
                if watch.is_done:
                    finish(watch.figures())

    faust.Worker(app, loglevel=logging.ERROR, redirect_stdouts=False).execute_from_commandline()
