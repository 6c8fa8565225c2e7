"""A loop around confluent-kafka (librdkafka): consume, decode, encode, produce; flush and commit each second. Ends when it is killed."""

import json
import time
import uuid
from collections.abc import Callable
from typing import NoReturn

import confluent_kafka

from benchmarks.clients.confluent_consume import TUNED
from benchmarks.task import Task

COMMIT_EVERY = 1.0
"""Seconds."""


def run(task: Task) -> NoReturn:
    """Transform the topic from its beginning; nothing is committed before its output is acknowledged."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": task.brokers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": task.brokers,
            "group.id": f"bench-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **TUNED,
        }
    )
    consumer.subscribe([task.topic])
    to, transform = task.options["to"], transformation(typed=bool(task.options.get("typed")))

    def delivered(error: object, _: object) -> None:
        if error is not None:
            raise RuntimeError(f"not delivered: {error}")

    commit_at, is_committed = time.monotonic() + COMMIT_EVERY, True
    while True:
        for message in consumer.consume(500, 0.1):
            is_committed = False
            if message.error():
                raise confluent_kafka.KafkaException(message.error())
            value = transform(message.value())
            while True:
                try:
                    producer.produce(to, value, message.key(), on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
        if time.monotonic() >= commit_at:
            producer.flush()
            if not is_committed:
                consumer.commit(asynchronous=False)
            commit_at, is_committed = time.monotonic() + COMMIT_EVERY, True


def transformation(*, typed: bool) -> Callable[[bytes], bytes]:
    """Return the function from value to value: by the standard library's JSON, or by msgspec into a struct and out of it."""
    if typed:
        import msgspec

        from benchmarks.structs import ShortEvent

        decode, encode = msgspec.json.Decoder(ShortEvent).decode, msgspec.json.Encoder().encode

        def transform_typed(value: bytes) -> bytes:
            event = decode(value)
            event.shift = "seen"
            return encode(event)

        return transform_typed

    def transform(value: bytes) -> bytes:
        event = json.loads(value)
        event["shift"] = "seen"
        return json.dumps(event).encode()

    return transform
