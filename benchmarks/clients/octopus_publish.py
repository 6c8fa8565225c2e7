"""Publishing with an app, as handlers and programs do."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import uvloop

from benchmarks.clients.outgoing import Clock, Pair, chunks, headers, pairs
from benchmarks.structs import FileEvent
from benchmarks.task import Task
from octopus import Message, Octopus


def run(task: Task) -> dict[str, float]:
    """Publish in the way that the case names."""
    settings = {"brokers": [task.brokers], "producer": {"compression": task.options["compression"]}}
    app = Octopus("bench", settings=settings)
    if task.options["way"] == "synchronous":
        return publish_synchronously(app, task)
    if task.options["way"] == "send":
        return send_synchronously(app, task)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(publish(app, task))


async def publish(app: Octopus, task: Task) -> dict[str, float]:
    """Publish the warm-up, then the rest against the clock."""
    way = {"one": one_by_one, "gather": at_once, "soon": soon, "many": many, "structs": many}[task.options["way"]]
    records = messages(task)
    async with app.connected():
        await way(app, task, records[: task.warm_up])
        clock = Clock()
        await way(app, task, records[task.warm_up :])
        return clock.figures(task.records)


async def one_by_one(app: Octopus, task: Task, records: Sequence[Any]) -> None:
    """Wait for each acknowledgement before the next record."""
    for record in records:
        await app.publish(task.topic, record.value, key=record.key, headers=record.headers)


async def at_once(app: Octopus, task: Task, records: Sequence[Any]) -> None:
    """Have 1,000 under way, then wait for all of them."""
    for start in range(0, len(records), 1000):
        part = records[start : start + 1000]
        await asyncio.gather(
            *[app.publish(task.topic, record.value, key=record.key, headers=record.headers) for record in part]
        )


async def soon(app: Octopus, task: Task, records: Sequence[Any]) -> None:
    """Queue 1,000, then wait for all of them."""
    for start in range(0, len(records), 1000):
        part = records[start : start + 1000]
        await asyncio.gather(
            *[app.publish_soon(task.topic, record.value, key=record.key, headers=record.headers) for record in part]
        )


async def many(app: Octopus, task: Task, records: Sequence[Any]) -> None:
    """Hand over thousands, and the next ones while those are on their way: confluent's queue is never empty, either."""
    before: asyncio.Task[Any] | None = None
    for part in chunks(records, task.value_bytes):
        latest = asyncio.create_task(app.publish_many(task.topic, part))
        if before is not None:
            await before
        before = latest
    if before is not None:
        await before


def publish_synchronously(app: Octopus, task: Task) -> dict[str, float]:
    """Publish from code that is not async."""
    records = messages(task)
    with app.synchronous_publisher() as publisher:
        for part in chunks(records[: task.warm_up], task.value_bytes):
            publisher.publish_many(task.topic, part)
        clock = Clock()
        for part in chunks(records[task.warm_up :], task.value_bytes):
            publisher.publish_many(task.topic, part)
        return clock.figures(task.records)


def send_synchronously(app: Octopus, task: Task) -> dict[str, float]:
    """Send one by one from code that is not async; errors are looked at."""
    records = messages(task)
    with app.synchronous_publisher() as publisher:
        for part, is_warm in ((records[: task.warm_up], False), (records[task.warm_up :], True)):
            if is_warm:
                clock = Clock()
            for record in part:
                publisher.send(task.topic, record.value, key=record.key, headers=record.headers)
            publisher.flush(None)
        return clock.figures(task.records)


def messages(task: Task) -> list[Any]:
    """Return what is published: plain values where there is nothing but a value."""
    decode = msgspec.json.Decoder(FileEvent).decode if task.options["way"] == "structs" else bytes
    extra = headers(task)
    bare = task.options["way"] in ("many", "structs", "synchronous") and not extra and not task.options["keys"]

    def message(pair: Pair) -> Any:
        value = decode(pair[1])
        return value if bare else Message(value, key=pair[0], headers=extra)

    return [message(pair) for pair in pairs(task)]
