"""The latency of aiokafka by itself."""

import asyncio
import time
import uuid

import aiokafka
import msgspec

from benchmarks.clients.latency import INTERVAL, Latencies, Timed, event, feeding
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Publish and consume, or be fed and consume."""
    return asyncio.run(measure(task))


async def measure(task: Task) -> dict[str, float]:
    """Consume with `getmany` until every event has come."""
    latencies = Latencies(task)
    consumer = aiokafka.AIOKafkaConsumer(
        task.topic,
        bootstrap_servers=task.brokers,
        group_id=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    consuming = asyncio.create_task(consume(consumer, latencies))
    try:
        if task.options["load"]:
            with feeding(task, latencies):
                await consuming
        else:
            await publish(task, latencies.expected)
            await consuming
    finally:
        consuming.cancel()
        await consumer.stop()
    return latencies.figures()


async def consume(consumer: aiokafka.AIOKafkaConsumer, latencies: Latencies) -> None:
    """Decode and note every event."""
    decode = msgspec.json.Decoder(Timed).decode
    while not latencies.is_done:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            for record in records:
                latencies.note(decode(record.value))


async def publish(task: Task, count: int) -> None:
    """Publish an event at a time."""
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=task.brokers, acks="all", enable_idempotence=True
    ) as producer:
        for _ in range(count):
            await asyncio.sleep(INTERVAL)
            await producer.send(task.topic, msgspec.json.encode(event(time.monotonic(), task.value_bytes)))
        await producer.flush()
