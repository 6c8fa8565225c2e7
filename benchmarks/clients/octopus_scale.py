"""What is not a rate: memory behind a handler that never returns, the time to the first record, the pause of a rebalance."""

import asyncio
import time
import uuid
from collections import Counter, defaultdict
from statistics import median_low

import uvloop

from benchmarks.clients.broker_load import memory
from benchmarks.structs import FileEvent
from benchmarks.task import Task
from octopus import Event, Octopus, config
from octopus.worker import Worker

PATIENCE = 2.0
"""Seconds without progress after which nothing more is expected."""

PUBLISHED_EVERY = 0.002
"""Seconds between events while workers come and go."""

PHASE = 6.0
"""Seconds that a second worker stays, and those before and after."""


def run(task: Task) -> dict[str, float]:
    """Measure what the case names."""
    way = {"stuck": stuck, "first": first, "rebalance": rebalance}[task.options["way"]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(way(task))


async def stuck(task: Task) -> dict[str, float]:
    """Let the first record hang for ever and see how far the others come, and how much memory that takes."""
    app = Octopus(f"bench-{uuid.uuid4().hex[:8]}")
    started, handled = memory_now(), 0
    forever = asyncio.Event()

    @app.on(task.topic, start="earliest", ordering=task.options["ordering"])
    async def handle(event: FileEvent) -> None:
        nonlocal started, handled
        handled += 1
        if handled == 1:
            started = memory_now()
            if task.options["stuck"]:
                await forever.wait()

    settings = config.load({"brokers": task.brokers, "worker": {"drain_timeout": 0.1}})
    async with Worker(app, settings, threaded=True):
        before, moved, peak = -1, time.monotonic(), 0.0
        while handled < task.total and time.monotonic() - moved < PATIENCE:
            if handled != before:
                before, moved = handled, time.monotonic()
            peak = max(peak, memory_now())
            await asyncio.sleep(0.05)
        return {"records": handled, "grown_mb": max(peak, memory_now()) - started, "memory_mb": memory_now()}


async def first(task: Task) -> dict[str, float]:
    """Time from the making of this process to the first record in the handler."""
    app = Octopus(f"bench-{uuid.uuid4().hex[:8]}")
    arrived = asyncio.get_running_loop().create_future()

    @app.on(task.topic, start="earliest")
    async def handle(event: FileEvent) -> None:
        if not arrived.done():
            arrived.set_result(time.monotonic())

    async with Worker(app, config.load({"brokers": task.brokers}), threaded=True):
        return {"seconds_to_first": await arrived - task.spawned}


async def rebalance(task: Task) -> dict[str, float]:
    """Publish steadily while a second worker joins and leaves; the longest wait of any event is the pause.

    By partition the median of the longest waits is that of a partition that stays: half of them move.
    """
    name = f"bench-{uuid.uuid4().hex[:8]}"
    longest, seen = defaultdict[int, float](float), Counter[tuple[int, int]]()

    def worker() -> Worker:
        app = Octopus(name)

        @app.on(task.topic, start="earliest")
        async def handle(event: Event[dict[str, float]]) -> None:
            waited = time.monotonic() - event.value["due"]
            longest[event.partition] = max(longest[event.partition], waited)
            seen[event.partition, event.offset] += 1

        settings = config.load({"brokers": task.brokers, "consumer": task.options["consumer"]})
        return Worker(app, settings, threaded=True)

    async with worker() as staying:
        publishing = asyncio.create_task(publish(staying.app, task))
        await asyncio.sleep(PHASE)
        longest.clear()
        async with worker():
            await asyncio.sleep(PHASE)
        await asyncio.sleep(PHASE)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await staying.caught_up()
        duplicates = sum(count - 1 for count in seen.values())
        return {
            "pause_ms": 1000 * max(longest.values()),
            "stayed_pause_ms": 1000 * median_low(longest.values()),
            "duplicates": duplicates,
            "records": len(seen),
        }


async def publish(app: Octopus, task: Task) -> None:
    """Publish to each partition in turn, until cancelled."""
    async with asyncio.TaskGroup() as sending:
        number = 0
        while True:
            await asyncio.sleep(PUBLISHED_EVERY)
            event = {"due": time.monotonic()}
            sending.create_task(app.publish(task.topic, event, partition=number % task.partitions))
            number += 1


def memory_now() -> float:
    """Return the resident memory of this process, megabytes."""
    return memory(0)
