"""A real `Worker` with the settings of `octopus run`, whose handler returns what `to=` publishes. Ends when it is killed."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

import uvloop

from benchmarks.structs import ShortEvent
from benchmarks.task import Task
from octopus import Octopus, config
from octopus.worker import Worker
from octopus.worker.collector import patient_collector


def run(task: Task) -> NoReturn:
    """Transform the topic from its beginning."""
    with patient_collector(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(transform(task))
    raise AssertionError("it goes on until it is killed")


async def transform(task: Task) -> NoReturn:
    """Run an app with one handler."""
    options = task.options
    app = Octopus(f"bench-{uuid.uuid4().hex[:8]}")
    app.on(
        task.topic,
        to=options["to"],
        batch=options.get("batch"),
        ordering=options.get("ordering", "partition"),
        concurrency=options.get("concurrency", 100),
        delivery=options.get("delivery", "at_least_once"),
        name="handle",
    )(handler(options))
    async with Worker(app, config.load({"brokers": task.brokers})) as worker:
        while not worker.failures:
            await asyncio.sleep(0.1)
        raise worker.failures[0]


def handler(options: dict[str, Any]) -> Callable[..., Any]:
    """Return a handler that changes a field of each event."""

    async def handle(event: ShortEvent) -> ShortEvent:
        event.shift = "seen"
        return event

    async def handle_batch(events: list[ShortEvent]) -> list[ShortEvent]:
        for event in events:
            event.shift = "seen"
        return events

    return handle_batch if options.get("batch") else handle
