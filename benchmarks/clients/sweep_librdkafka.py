"""librdkafka (confluent-kafka) as producer and consumer of the sweep."""

import json
import time
from collections.abc import Sequence
from typing import Any

import confluent_kafka

from benchmarks.address import for_librdkafka
from benchmarks.clients.confluent_consume import TUNED
from benchmarks.clients.sweeping import EVERY, Done, Look, share
from benchmarks.task import Task

QUEUED = 50_000
"""Records that may wait in the producer: what is handed over faster waits outside."""


def produce(number: int, task: Task, values: Sequence[bytes], look: Look) -> Done:
    """Publish this client's part of the records as fast as it can."""
    requests = Requests("Produce")
    producer = _producer(task, requests)
    failures: list[Any] = []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            failures.append(error)
        else:
            done.latencies.append(message.latency())

    batch: list[Any] = [{"value": values[index % len(values)]} for index in range(EVERY - 1)]
    done = Done(share(task) // EVERY * EVERY, look)
    for start in range(0, done.records, EVERY):
        while len(producer) > QUEUED:
            producer.poll(0.001)
        producer.produce(task.topic, values[start // EVERY % len(values)], on_delivery=delivered)
        producer.produce_batch(task.topic, batch)
        producer.poll(0)
    if left := producer.flush(120):
        raise RuntimeError(f"{left} records were not acknowledged")
    done.stop()
    if failures:
        raise RuntimeError(f"{len(failures)} were not delivered, the first because of {failures[0]}")
    done.requests = requests.count(producer)
    return done


def paced(number: int, task: Task, values: Sequence[bytes], look: Look) -> Done:
    """Publish one record after the other, each when it is due."""
    producer = _producer(task, Requests("Produce"))
    done = Done(task.total, look)
    begin, interval = time.monotonic() + 0.5, 1 / task.options["rate"]
    for index in range(task.total):
        due = begin + index * interval
        while (wait := due - time.monotonic()) > 0:
            producer.poll(wait)

        def delivered(error: Any, message: Any, due: float = due) -> None:
            done.latencies.append(time.monotonic() - due)

        producer.produce(task.topic, values[index % len(values)], on_delivery=delivered)
        producer.poll(0)
    producer.flush(120)
    done.stop()
    done.latencies = done.latencies[task.warm_up :]
    return done


def consume(number: int, task: Task, values: Sequence[bytes], look: Look) -> Done:
    """Read this client's partitions to their present end."""
    requests = Requests("Fetch")
    consumer = confluent_kafka.Consumer(
        {**for_librdkafka(task.brokers), "group.id": "unused", **TUNED, **requests.settings}
    )
    mine = [confluent_kafka.TopicPartition(task.topic, one, 0) for one in range(task.partitions)]
    mine = mine[number :: task.options["clients"]]
    wanted = sum(consumer.get_watermark_offsets(partition, timeout=10)[1] for partition in mine)
    done = Done(wanted, look)
    consumer.assign(mine)
    seen = 0
    while seen < wanted:
        # Not more than there are: it would wait a second for them.
        for message in consumer.consume(min(1000, wanted - seen), 1.0):
            message.value()
            seen += 1
    done.stop()
    done.requests = requests.count(consumer)
    return done


class Requests:
    """Counts the requests of a client, from the statistics that librdkafka gives.

    Args:
        kind: Kafka's name of the request.

    Attributes:
        settings: For the client.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._seen = 0
        self._reports = 0
        self.settings: dict[str, Any] = {"statistics.interval.ms": 200, "stats_cb": self._note}

    def _note(self, text: str) -> None:
        self._seen = sum(broker["req"].get(self._kind, 0) for broker in json.loads(text)["brokers"].values())
        self._reports += 1

    def count(self, client: Any) -> int:
        """Wait for a report that knows the last request; return how many there were."""
        enough = self._reports + 2  # the first may have been under way
        while self._reports < enough:
            client.poll(0.05)
        return self._seen


def _producer(task: Task, requests: Requests) -> Any:
    acks = task.options["acks"]
    producer = confluent_kafka.Producer(
        {
            **for_librdkafka(task.brokers),
            "acks": acks,
            "enable.idempotence": acks == "all",
            "linger.ms": 5,
            "queue.buffering.max.messages": 2 * QUEUED,
            **requests.settings,
        }
    )
    producer.list_topics(task.topic, timeout=10)
    return producer
