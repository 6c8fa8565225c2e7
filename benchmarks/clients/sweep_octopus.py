"""Octopus itself as producer and consumer of the sweep: `publish_many`, and a worker as `octopus run` runs it.

Its producer always waits for all in-sync replicas. Its consumers read side by side, each the whole topic in a group of its
own: sharing a full topic would begin with a rebalance, and that is not what is measured here.
"""

import asyncio
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop
from aiokafka.conn import AIOKafkaConnection

from benchmarks.address import for_octopus
from benchmarks.clients.sweeping import Done, Look, share
from benchmarks.task import Task
from octopus import Octopus, config
from octopus.worker import Worker

CHUNK = 5000
"""Records handed over at once; of large ones, as many as make `CHUNK_BYTES`."""

CHUNK_BYTES = 8 * 2**20

BATCH_BYTES = 64 * 1024
"""Of a batch, where the case says nothing else."""


def produce(number: int, task: Task, values: Sequence[bytes], look: Look) -> Done:
    """Publish this client's part of the records, a chunk after the other."""

    async def publish() -> Done:
        batch = {"max_batch_bytes": task.options.get("batch_bytes", BATCH_BYTES)}
        app = Octopus("bench", settings={**for_octopus(task.brokers), "producer": batch})
        size = chunk_size(task)
        chunk = [values[index % len(values)] for index in range(size)]
        async with app.connected():
            await app.publish_many(task.topic, chunk[:1])  # finds the leaders
            requests = Requests("ProduceRequest")
            done = Done(published(task), look)
            for _ in range(0, done.records, size):
                began = time.monotonic()
                await app.publish_many(task.topic, chunk)
                done.latencies.append(time.monotonic() - began)
            done.stop()
            done.requests = requests.count
            return done

    return _run(publish())


def paced(number: int, task: Task, values: Sequence[bytes], look: Look) -> Done:
    """Publish one record after the other, each when it is due."""

    async def publish() -> Done:
        app = Octopus("bench", settings=for_octopus(task.brokers))

        async def one(due: float, value: bytes) -> None:
            await app.publish(task.topic, value)
            done.latencies.append(time.monotonic() - due)

        async with app.connected():
            await app.publish(task.topic, values[0])
            done = Done(task.total, look)
            begin, interval = time.monotonic() + 0.5, 1 / task.options["rate"]
            async with asyncio.TaskGroup() as publishing:
                for index in range(task.total):
                    due = begin + index * interval
                    if (wait := due - time.monotonic()) > 0:
                        await asyncio.sleep(wait)
                    publishing.create_task(one(due, values[index % len(values)]))
            done.stop()
            done.latencies = done.latencies[task.warm_up :]
            return done

    return _run(publish())


def consume(number: int, task: Task, values: Sequence[bytes], look: Look) -> Done:
    """Read the whole topic; the clock starts with the first record."""

    async def read() -> Done:
        app = Octopus(f"bench-{uuid.uuid4().hex[:8]}")
        wanted = task.options["clients"] * published(task)
        seen = 0
        done: Done | None = None
        requests = Requests("FetchRequest")

        @app.on(task.topic, start="earliest")
        async def handle(event: bytes) -> None:
            nonlocal done, seen
            if done is None:
                requests.count = 0
                done = Done(wanted, look)
            seen += 1
            if seen == wanted:
                done.stop()
                done.requests = requests.count

        async with Worker(app, config.load(for_octopus(task.brokers)), threaded=True) as worker:
            while done is None or not done.end:
                await asyncio.sleep(0.02)
                if worker.failures:
                    raise worker.failures[0]
        return done

    return _run(read())


def chunk_size(task: Task) -> int:
    """Return how many records are handed over at once."""
    return max(100, min(CHUNK, CHUNK_BYTES // task.value_bytes) // 100 * 100)


def published(task: Task) -> int:
    """Return how many records one producer publishes: whole chunks, at least one."""
    size = chunk_size(task)
    return max(share(task) // size, 1) * size


class Requests:
    """Counts the requests of one kind that this process sends. aiokafka keeps no such count."""

    def __init__(self, kind: str) -> None:
        self.count = 0
        send = AIOKafkaConnection.send

        def counting(connection: Any, request: Any, *arguments: Any, **options: Any) -> Any:
            if type(request).__name__.startswith(kind):
                self.count += 1
            return send(connection, request, *arguments, **options)

        AIOKafkaConnection.send = counting


def _run(work: Coroutine[Any, Any, Done]) -> Done:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
