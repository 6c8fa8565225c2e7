"""Asks for committed offsets that no transaction is about to change: OffsetFetch 7 (KIP-447), which aiokafka lacks.

Before Kafka 4 a coordinator may say that a transaction is complete a moment before its offsets can be read. A member
that begins at the older ones would publish its outputs a second time. Brokers that do not know version 7 get an earlier one.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from octopus.events import TopicPartition
from octopus.transports.kafka.engine import speaking

UNSTABLE = 88
"""Error code: an open transaction is going to commit, or drop, offsets of this partition. Ask again."""


class _Answer(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _Question(RequestStruct):
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


@speaking(_Question)
class StableOffsetFetch(OffsetFetchRequest):
    """Asks in the latest version that the broker knows, of those up to 7.

    Args:
        group: Whose offsets.
        topics: Topics with their partitions.
    """

    def __init__(self, group: str, topics: list[tuple[str, list[int]]]) -> None:
        super().__init__(group, topics)
        self._group = group
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in a version."""
        if request_struct_class is not _Question:
            return super().build(request_struct_class)
        return _Question(self._group, [(topic, partitions, {}) for topic, partitions in self._topics], True, {})


def entries(reply: Any) -> Iterator[tuple[TopicPartition, int, str, int]]:
    """Yield partition, offset, metadata and error code of an answer in any version."""
    for topic, partitions, *_ in reply.topics:
        for number, offset, *rest in partitions:
            metadata, code = rest[1:3] if reply.API_VERSION == _Answer.API_VERSION else rest
            yield TopicPartition(topic, number), offset, text(metadata), code


def text(metadata: str | None) -> str:
    """Return what was meant: librdkafka commits C strings with the zero at their end."""
    return (metadata or "").rstrip("\0")
