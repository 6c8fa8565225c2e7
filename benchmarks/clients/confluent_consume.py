"""confluent-kafka (librdkafka) by itself."""

import uuid

import confluent_kafka

from benchmarks.stopwatch import Stopwatch
from benchmarks.task import Task

TUNED = {"fetch.queue.backoff.ms": 5, "queued.min.messages": 500_000, "fetch.wait.max.ms": 100}


def run(task: Task) -> dict[str, float]:
    """Consume the topic from its beginning, 500 records a turn, and read each value."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": task.brokers,
            "group.id": f"bench-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **(TUNED if task.options.get("tuned") else {}),
        }
    )
    consumer.subscribe([task.topic])
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop
    while not watch.is_done:
        for message in consumer.consume(500, 1.0):
            if message.error():
                raise confluent_kafka.KafkaException(message.error())
            message.value()
            seen += 1
        if seen >= stop:
            stop = watch.mark(seen)
    return watch.figures()
