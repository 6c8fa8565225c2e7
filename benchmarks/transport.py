"""What a record costs between the broker and us, next to aiokafka used directly.

    python -m benchmarks.transport --brokers 127.0.0.1:9092

Prints one JSON line per case: records per second and CPU microseconds per record of this process. Cases are interleaved and
the median of the repeats counts. Consuming reads the same topic from its start, with a fresh group each time.
"""

import argparse
import asyncio
import importlib.metadata
import json
import platform
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import aiokafka

from octopus.events import TopicPartition
from octopus.transports import open_transport
from octopus.transports.base import Chunk, Consumer, Outgoing

Case = Callable[[argparse.Namespace, str], Awaitable[int]]


def main() -> None:
    """Run all cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    asyncio.run(run(parser.parse_args()))


async def run(arguments: argparse.Namespace) -> None:
    """Fill a topic, measure every case, delete the topic."""
    topic = f"benchmark-{uuid.uuid4().hex[:8]}"
    admin = open_transport(arguments.brokers).admin()
    await admin.start()
    await admin.create_topic(topic, partitions=arguments.partitions)
    await admin.create_topic(f"{topic}-out", partitions=arguments.partitions)
    try:
        await our_send_many(arguments, topic)
        measured: dict[str, list[tuple[float, float]]] = {}
        for _ in range(arguments.repeats):
            for name, case in CASES.items():
                if arguments.only in name:
                    measured.setdefault(name, []).append(await measure(case, arguments, topic))
        for name, runs in measured.items():
            print(json.dumps(line(name, runs, arguments)))
    finally:
        await admin.delete_topic(topic)
        await admin.delete_topic(f"{topic}-out")
        await admin.stop()


async def measure(case: Case, arguments: argparse.Namespace, topic: str) -> tuple[float, float]:
    """Return wall and CPU seconds per record."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = await case(arguments, topic)
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def line(name: str, runs: list[tuple[float, float]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return one case's figures and what is needed to judge them."""
    return {
        "case": name,
        "records_per_second": round(1 / statistics.median(wall for wall, _ in runs)),
        "cpu_microseconds_per_record": round(1e6 * statistics.median(cpu for _, cpu in runs), 3),
        "records": arguments.records,
        "bytes": arguments.bytes,
        "partitions": arguments.partitions,
        "repeats": len(runs),
        "aiokafka": importlib.metadata.version("aiokafka"),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


class FromStart:
    """Starts every partition at its beginning."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.mine: set[TopicPartition] = set()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        await self.consumer.seek(await self.consumer.offsets(partitions, "earliest"))
        self.mine |= set(partitions)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.mine -= set(partitions)

    lost = revoked


async def our_fetch(arguments: argparse.Namespace, topic: str) -> int:
    """Our consumer, 500 records a turn."""
    consumer = open_transport(arguments.brokers).consumer(f"benchmark-{uuid.uuid4().hex}", [topic])
    listener = FromStart(consumer)
    await consumer.start(listener)
    count = 0
    while count < arguments.records:
        for chunk in await consumer.fetch(listener.mine, max_records=500, timeout=1.0):
            assert isinstance(chunk, Chunk), chunk
            for record in chunk.records:
                record.value  # noqa: B018 - what the decoder would read
            count += len(chunk.records)
    await consumer.stop()
    return count


async def raw_getmany(arguments: argparse.Namespace, topic: str) -> int:
    """aiokafka's `getmany(max_records=500)`."""
    consumer = aiokafka.AIOKafkaConsumer(
        topic,
        bootstrap_servers=arguments.brokers,
        group_id=f"benchmark-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    count = 0
    while count < arguments.records:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            for record in records:
                record.value  # noqa: B018
            count += len(records)
    await consumer.stop()
    return count


async def our_send_many(arguments: argparse.Namespace, topic: str) -> int:
    """Our `send_many`, 5,000 messages a call."""
    producer = open_transport(arguments.brokers).producer()
    await producer.start()
    value = b"x" * arguments.bytes
    for start in range(0, arguments.records, 5000):
        count = min(5000, arguments.records - start)
        await producer.send_many([Outgoing(topic, value) for _ in range(count)])
    await producer.stop()
    return int(arguments.records)


async def our_send_many_keyed(arguments: argparse.Namespace, topic: str) -> int:
    """Our `send_many` with 1,000 different keys."""
    producer = open_transport(arguments.brokers).producer()
    await producer.start()
    value = b"x" * arguments.bytes
    keys = [b"key-%d" % number for number in range(1000)]
    for start in range(0, arguments.records, 5000):
        numbers = range(start, min(start + 5000, arguments.records))
        await producer.send_many([Outgoing(f"{topic}-out", value, keys[number % 1000]) for number in numbers])
    await producer.stop()
    return int(arguments.records)


async def our_send(arguments: argparse.Namespace, topic: str) -> int:
    """Our `send`, 1,000 at a time."""
    producer = open_transport(arguments.brokers).producer()
    await producer.start()
    message = Outgoing(f"{topic}-out", b"x" * arguments.bytes)
    count = arguments.records // 10
    for _ in range(0, count, 1000):
        await asyncio.gather(*[producer.send(message) for _ in range(1000)])
    await producer.stop()
    return int(count)


async def raw_send(arguments: argparse.Namespace, topic: str) -> int:
    """aiokafka's `send`, idempotent, 1,000 at a time."""
    count = arguments.records // 10
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=arguments.brokers, enable_idempotence=True, max_batch_size=65_536
    ) as producer:
        value = b"x" * arguments.bytes
        for _ in range(0, count, 1000):
            futures = [await producer.send(f"{topic}-out", value) for _ in range(1000)]
            await asyncio.gather(*futures)
    return int(count)


async def raw_send_batch(arguments: argparse.Namespace, topic: str) -> int:
    """aiokafka's `create_batch`, `append`, `send_batch`, idempotent."""
    async with aiokafka.AIOKafkaProducer(
        bootstrap_servers=arguments.brokers, enable_idempotence=True, max_batch_size=256 * 1024
    ) as producer:
        value = b"x" * arguments.bytes
        turn, futures, batch = 0, [], producer.create_batch()
        for _ in range(arguments.records):
            if batch.append(key=None, value=value, timestamp=None) is None:
                futures.append(await producer.send_batch(batch, f"{topic}-out", partition=turn % arguments.partitions))
                turn, batch = turn + 1, producer.create_batch()
                batch.append(key=None, value=value, timestamp=None)
        futures.append(await producer.send_batch(batch, f"{topic}-out", partition=turn % arguments.partitions))
        await asyncio.gather(*futures)
    return int(arguments.records)


CASES: dict[str, Case] = {
    "octopus fetch": our_fetch,
    "aiokafka getmany(500)": raw_getmany,
    "octopus send_many": lambda arguments, topic: our_send_many(arguments, f"{topic}-out"),
    "octopus send_many, keyed": our_send_many_keyed,
    "aiokafka send_batch": raw_send_batch,
    "octopus send": our_send,
    "aiokafka send": raw_send,
}

if __name__ == "__main__":
    main()
