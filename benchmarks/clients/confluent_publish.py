"""Publishing with confluent-kafka (librdkafka)."""

from collections.abc import Sequence

import confluent_kafka

from benchmarks.clients.outgoing import Clock, Pair, headers, pairs
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Publish the warm-up, then the rest against the clock; every delivery report is looked at."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": task.brokers,
            "acks": task.options["acks"],
            "enable.idempotence": task.options["acks"] == "all",
            "linger.ms": 2,
            "compression.type": task.options["compression"],
            "queue.buffering.max.messages": 1_000_000,
            "message.max.bytes": 4 * 2**20,
        }
    )
    failures: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failures.append(error)

    def publish(records: Sequence[Pair], one_by_one: bool) -> None:
        for key, value in records:
            while True:
                try:
                    producer.produce(task.topic, value, key, headers=extra, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.01)
            if one_by_one:
                producer.flush()
            else:
                producer.poll(0)
        producer.flush()

    records, extra = pairs(task), headers(task) or None
    one_by_one = task.options["way"] == "one"
    publish(records[: task.warm_up], one_by_one)
    clock = Clock()
    publish(records[task.warm_up :], one_by_one)
    figures = clock.figures(task.records)
    if failures:
        raise RuntimeError(f"{len(failures)} not delivered, the first because of {failures[0]}")
    return figures
