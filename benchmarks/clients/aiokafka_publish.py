"""Publishing with aiokafka."""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiokafka

from benchmarks.clients.outgoing import Clock, Pair, headers, pairs
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Publish in the way that the case names."""
    return asyncio.run(publish(task))


async def publish(task: Task) -> dict[str, float]:
    """Publish the warm-up, then the rest against the clock."""
    compression = task.options["compression"]
    way = {"one": one_by_one, "flush": flushed, "batch": batched}[task.options["way"]]
    acks = task.options["acks"]
    records, extra = pairs(task), headers(task)
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=task.brokers,
        acks=acks if acks == "all" else int(acks),
        enable_idempotence=acks == "all",
        max_batch_size=1_000_000,
        linger_ms=0 if way is one_by_one else 2,
        compression_type=None if compression == "none" else compression,
        max_request_size=4 * 2**20,
    ) as producer:
        await way(producer, task, records[: task.warm_up], extra)
        clock = Clock()
        await way(producer, task, records[task.warm_up :], extra)
        return clock.figures(task.records)


async def one_by_one(producer: Any, task: Task, records: Sequence[Pair], extra: list[tuple[str, bytes]]) -> None:
    """Wait for each acknowledgement before the next record."""
    for key, value in records:
        await producer.send_and_wait(task.topic, value, key=key, headers=extra)


async def flushed(producer: Any, task: Task, records: Sequence[Pair], extra: list[tuple[str, bytes]]) -> None:
    """Send 1,000, then wait for all of them."""
    for start in range(0, len(records), 1000):
        futures = [
            await producer.send(task.topic, value, key=key, headers=extra)
            for key, value in records[start : start + 1000]
        ]
        await asyncio.gather(*futures)


async def batched(producer: Any, task: Task, records: Sequence[Pair], extra: list[tuple[str, bytes]]) -> None:
    """Pack batches by hand; keys do not choose the partition here."""
    turn, futures = 0, []
    batch = producer.create_batch()
    for key, value in records:
        if batch.append(key=key, value=value, timestamp=None, headers=extra) is None:
            futures.append(await producer.send_batch(batch, task.topic, partition=turn % task.partitions))
            turn, batch = turn + 1, producer.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=extra)
    futures.append(await producer.send_batch(batch, task.topic, partition=turn % task.partitions))
    await asyncio.gather(*futures)
