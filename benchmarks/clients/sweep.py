"""One point of the sweep: some producers fill a topic, then as many consumers read it.

python -m benchmarks.clients.sweep WAY NUMBER TASK     is one of them
"""

import os
import random
import subprocess
import sys
import time

import confluent_kafka

from benchmarks.clients.confluent_consume import TUNED
from benchmarks.task import Task, answer, read_answer


def run(task: Task) -> dict[str, float]:
    """Produce, then consume; rates are records by the time from the first client's start to the last one's end."""
    produced = together("produce", task)
    consumed = together("consume", task)
    return {
        "produced_per_second": produced,
        "consumed_per_second": consumed,
        "megabytes_per_second": produced * task.value_bytes / 1e6,
    }


def together(way: str, task: Task) -> float:
    """Run the clients side by side; return records per second, all together."""
    command = [sys.executable, "-m", "benchmarks.clients.sweep", way]
    clients = [
        subprocess.Popen([*command, str(number), task.to_json()], stdout=subprocess.PIPE, text=True)
        for number in range(task.options["clients"])
    ]
    answers = []
    for client in clients:
        output, _ = client.communicate()
        figures = read_answer(output)
        if figures is None:
            raise RuntimeError(f"a client ended with exit code {client.returncode}")
        answers.append(figures)
    seconds = max(one["end"] for one in answers) - min(one["begin"] for one in answers)
    return sum(one["records"] for one in answers) / seconds


def produce(number: int, task: Task) -> dict[str, float]:
    """Publish this client's part of the records."""
    acks = task.options["acks"]
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": task.brokers,
            "acks": acks,
            "enable.idempotence": acks == "all",
            "linger.ms": 5,
            "queue.buffering.max.messages": 500_000,
        }
    )
    # Random, so that nothing between here and the disk can make less of it.
    batch = [{"value": random.Random(task.seed + index).randbytes(task.value_bytes)} for index in range(100)]
    count = task.total // task.options["clients"]
    producer.list_topics(task.topic, timeout=10)
    begin = time.monotonic()
    for _ in range(0, count, len(batch)):
        if producer.produce_batch(task.topic, batch) < len(batch) or len(producer) > 100_000:
            producer.poll(0.01)
    if left := producer.flush(120):
        raise RuntimeError(f"{left} records were not acknowledged")
    return {"begin": begin, "end": time.monotonic(), "records": count}


def consume(number: int, task: Task) -> dict[str, float]:
    """Read this client's partitions to their present end."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": task.brokers, "group.id": "unused", **TUNED})
    mine = [confluent_kafka.TopicPartition(task.topic, one, 0) for one in range(task.partitions)]
    mine = mine[number :: task.options["clients"]]
    wanted = sum(consumer.get_watermark_offsets(partition, timeout=10)[1] for partition in mine)
    begin, seen = time.monotonic(), 0
    consumer.assign(mine)
    while seen < wanted:
        seen += len(consumer.consume(5000, 1.0))
    return {"begin": begin, "end": time.monotonic(), "records": seen}


if __name__ == "__main__":
    given = Task.from_json(sys.argv[3])
    answer({"produce": produce, "consume": consume}[sys.argv[1]](int(sys.argv[2]), given))
    sys.stdout.flush()
    os._exit(0)
