"""sentry-arroyo: `RunTask`, then `CommitOffsets`; values decoded by msgspec into the same type as ours."""

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory, RunTask
from arroyo.types import Commit, Message, Partition, Topic

from benchmarks.stopwatch import Stopwatch
from benchmarks.structs import FileEvent
from benchmarks.task import Task, finish


def run(task: Task) -> None:
    """Consume the topic from its beginning."""
    watch = Stopwatch(task.warm_up, task.records)
    seen, stop = 0, watch.first_stop
    decode = msgspec.json.Decoder(FileEvent).decode

    def handle(message: Message[KafkaPayload]) -> None:
        nonlocal seen, stop
        decode(message.payload.value)
        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)
            if watch.is_done:
                finish(watch.figures())

    class Factory(ProcessingStrategyFactory[KafkaPayload]):
        def create_with_partitions(
            self, commit: Commit, partitions: Mapping[Partition, int]
        ) -> ProcessingStrategy[Any]:
            return RunTask(handle, CommitOffsets(commit))

    configuration = build_kafka_consumer_configuration(
        {},
        group_id=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        bootstrap_servers=[task.brokers],
        queued_min_messages=500_000,
        queued_max_messages_kbytes=1_000_000,
        override_params={"fetch.queue.backoff.ms": 5},
    )
    StreamProcessor(KafkaConsumer(configuration), Topic(task.topic), Factory()).run()
