"""The latency of an app under the settings of `octopus run`."""

import asyncio
import contextlib
import time
import uuid

import uvloop

from benchmarks.clients.latency import INTERVAL, Latencies, Timed, event, feeding
from benchmarks.task import Task
from octopus import Octopus, config
from octopus.worker import Worker
from octopus.worker.collector import patient_collector
from octopus.worker.switching import prompt_switches


def run(task: Task) -> dict[str, float]:
    """Publish and consume, or be fed and consume."""
    with contextlib.ExitStack() as process:
        if task.options["threaded"]:  # else it is embedded in somebody's program, whose these are
            process.enter_context(patient_collector())
            process.enter_context(prompt_switches())
        runner = process.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        return runner.run(measure(task))


async def measure(task: Task) -> dict[str, float]:
    """Run a worker until every event has come."""
    latencies = Latencies(task)
    app = Octopus(f"bench-{uuid.uuid4().hex[:8]}")

    @app.on(task.topic, start="earliest")
    async def handle(event: Timed) -> None:
        latencies.note(event)

    settings = config.load({"brokers": task.brokers})
    async with Worker(app, settings, threaded=task.options["threaded"]):
        if task.options["load"]:
            with feeding(task, latencies):
                await done(latencies)
        else:
            async with asyncio.TaskGroup() as publishing:
                for _ in range(latencies.expected):
                    await asyncio.sleep(INTERVAL)
                    value = event(time.monotonic(), task.value_bytes)
                    publishing.create_task(app.publish(task.topic, value))  # like `send`: on to the next one
            await done(latencies)
    return latencies.figures()


async def done(latencies: Latencies) -> None:
    """Wait for the last event."""
    while not latencies.is_done:
        await asyncio.sleep(0.02)
