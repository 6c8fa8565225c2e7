"""A real `Worker` with the settings of `octopus run`."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.records import FILTERS, LOTS
from benchmarks.stopwatch import Stopwatch, rates
from benchmarks.structs import FileEvent
from benchmarks.task import Task
from octopus import Event, Octopus, config
from octopus.runner.lanes import BATCH_BYTES
from octopus.worker import Worker
from octopus.worker.collector import patient_collector


def run(task: Task) -> dict[str, float]:
    """Consume the topic from its beginning."""
    # Embedded in somebody's program, the collector is somebody else's.
    collector = patient_collector() if task.options.get("threaded", True) else contextlib.nullcontext()
    with collector, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(consume(task))


async def consume(task: Task) -> dict[str, float]:
    """Run an app with one handler until the stopwatch is done."""
    options = task.options
    watch = Stopwatch(task.warm_up, task.records - in_partial_batches(task))
    app = Octopus(f"bench-{uuid.uuid4().hex[:8]}")
    match = options.get("match")
    handle = handler(watch, options)
    for name, pattern in filters(options).items():
        app.on(
            task.topic,
            name=name,
            group=app.name,
            filter=pattern,
            batch=options.get("batch"),
            ordering=options.get("ordering", "partition"),
            concurrency=options.get("concurrency", 100),
            start="earliest",
        )(handle)
    settings = config.load({"brokers": task.brokers, "consumer": options.get("consumer", {})})
    async with Worker(app, settings, threaded=options.get("threaded", True)) as worker:
        if match is not None:
            return await settled(worker, task)
        while not watch.is_done:
            await asyncio.sleep(0.02)
            if worker.failures:
                raise worker.failures[0]
        return watch.figures()


def in_partial_batches(task: Task) -> int:
    """Return how many records may be in the last batch of their partition, which waits for company that does not come."""
    most = task.options.get("batch")
    return task.partitions * min(most, max(1, BATCH_BYTES // task.value_bytes)) if most else 0


def filters(options: dict[str, Any]) -> dict[str, Any]:
    """Return the filter of each handler. Several share the lots out among them, so that each record is for one."""
    if "handlers" in options:
        count = options["handlers"]
        lots = [f"lot-{number:02}" for number in range(LOTS)]
        return {f"handle-{number:02}": {"lot": lots[number::count]} for number in range(count)}
    return {"handle": FILTERS[options["match"]] if "match" in options else None}


def handler(watch: Stopwatch, options: dict[str, Any]) -> Callable[..., Any]:
    """Return a handler that counts, and does what the case asks for."""
    seen, stop = 0, watch.first_stop
    annotation = _annotation(options.get("type", "struct"))
    pause = {"suspend": 0.0, "io": 0.001}.get(options.get("work", ""))

    if options.get("batch"):

        async def handle_batch(events: list[annotation]) -> None:  # type: ignore[valid-type]
            nonlocal seen, stop
            seen += len(events)
            if seen >= stop:
                stop = watch.mark(seen)

        return handle_batch

    if pause is not None:

        async def handle_slowly(event: annotation) -> None:  # type: ignore[valid-type]
            nonlocal seen, stop
            await asyncio.sleep(pause)
            seen += 1
            if seen >= stop:
                stop = watch.mark(seen)

        return handle_slowly

    async def handle(event: annotation) -> None:  # type: ignore[valid-type]
        nonlocal seen, stop
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)

    return handle


async def settled(worker: Worker, task: Task) -> dict[str, float]:
    """Time by what is settled: a handler does not see what its filter drops."""
    count, wall, cpu = await _settled(worker, task.warm_up)
    end, wall_end, cpu_end = await _settled(worker, task.total)
    return rates(end - count, wall_end - wall, cpu_end - cpu)


async def _settled(worker: Worker, wanted: int) -> tuple[int, float, float]:
    while True:
        count = sum(group.settled for group in worker.status().groups)
        if count >= wanted:
            return count, time.perf_counter(), time.process_time()
        await asyncio.sleep(0.005)


def _annotation(kind: str) -> Any:
    match kind:
        case "pydantic":
            from benchmarks.models import FileEvent as Model

            return Model
        case "dict":
            return dict[str, Any]
        case "event":
            return Event[FileEvent]
        case "bytes":
            return bytes
        case _:
            return FileEvent
