"""Asks brokers for topic ids: Metadata 11 and 12 (KIP-516), which aiokafka lacks.

A topic that is deleted and made again keeps its name and gets another id.
"""

import asyncio
import base64
import random
import struct
from collections.abc import Collection
from typing import Any

import aiokafka.errors as kafka
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Schema, TaggedFields

from octopus.transports.kafka.compact import after_tags, bytes_at, length_at, text_at
from octopus.transports.kafka.engine import Client, ConnectionGroup, Coordinator

UNKNOWN_TOPICS = (3, 100)
"""Error codes: there is no topic of this name, or of this id."""

PAUSE = 0.05
"""Seconds until brokers are asked again that do not agree."""

_NONE = bytes(16)
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")
_PARTITION_BYTES = 14  # error code, number, leader, leader epoch


def id_text(raw: bytes) -> str:
    """Write a topic id as Kafka's tools do."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def id_bytes(text: str) -> bytes:
    """Read what `id_text` wrote."""
    return base64.urlsafe_b64decode(text + "==")


class _Raw:
    """Sixteen bytes as they are."""

    @staticmethod
    def encode(value: bytes) -> bytes:
        return value

    @staticmethod
    def decode(data: Any) -> bytes:
        raw: bytes = data.read(16)
        return raw

    repr = repr


_raw: Any = _Raw


class _Answer(Response):
    """Error code and id of each topic. Thousands of partitions are stepped over: they do not matter here."""

    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(("topics", _raw))

    @classmethod
    def decode(cls, data: Any) -> Any:
        view = memoryview(data if isinstance(data, bytes) else data.read())
        at = 4  # behind the throttle time
        brokers, at = length_at(view, at)
        for _ in range(brokers):
            _, at = text_at(view, at + 4)
            _, at = text_at(view, at + 4)
            at = after_tags(view, at)
        _, at = text_at(view, at)  # the cluster's id
        topics: dict[str, tuple[int, bytes]] = {}
        count, at = length_at(view, at + 4)  # behind the controller
        for _ in range(count):
            (code,) = _INT16.unpack_from(view, at)
            name, at = text_at(view, at + 2)
            topics[name] = code, bytes(bytes_at(view, at, 16))
            partitions, at = length_at(view, at + 17)  # behind the id, and whether the topic is internal
            for _ in range(partitions):
                at += _PARTITION_BYTES
                for _ in range(3):  # replicas, those in sync, those offline
                    replicas, at = length_at(view, at)
                    at += 4 * replicas
                at = after_tags(view, at)
            at = after_tags(view, at + 4)  # behind what the principal may do
        return cls(topics)


_SCHEMA = Schema(
    (
        "topics",
        CompactArray(("id", _raw), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
    ),
    ("allow_auto_topic_creation", Boolean),
    ("include_topic_authorized_operations", Boolean),
    ("tags", TaggedFields),
)


class _Question11(RequestStruct):
    API_KEY = 3
    API_VERSION = 11
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = _SCHEMA


class _Question12(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = _SCHEMA


class _Question(Request[_Question11 | _Question12]):
    API_KEY = 3

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([(_NONE, topic, {}) for topic in self._topics], False, False, {})


class TopicIds:
    """What brokers say a name stands for.

    Args:
        client: One of ours.
        member: A member of a group: to ask the node first, over the connection, that takes the group's commits. Those for
            fetching wait for records, and may be throttled.
    """

    def __init__(self, client: Client, member: Coordinator | None = None) -> None:
        self._client = client
        self._member = member
        self._last: dict[str, str | None] = {}  # without those that are not there

    async def ask(self, topics: Collection[str], timeout: float) -> dict[str, str | None]:
        """Return the id of each topic that is there; None where brokers have no ids (before Kafka 2.8).

        One broker is asked. When it says something new, all are: one that lags behind must not make an old topic of a new one.

        Args:
            topics: Names.
            timeout: Seconds for brokers to agree.

        Raises:
            KafkaError: None answers, or they do not agree.
        """
        if not topics:
            return {}
        found = await self._ask_first(topics)
        if any(self._last.get(topic, "") != found.get(topic, "") for topic in topics):
            found = await self._ask_all(topics, timeout)
        self._last = {topic: known for topic, known in self._last.items() if topic not in topics} | found
        return found

    async def _ask_first(self, topics: Collection[str]) -> dict[str, str | None]:
        nearest = self._member.coordinator_id if self._member is not None else None
        nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node != nearest)
        error: kafka.KafkaError = kafka.NodeNotReadyError("no broker is known")
        for node in nodes:
            try:
                return await self._of(node, topics)
            except kafka.KafkaError as failed:
                if not failed.retriable:
                    raise
                error = failed
        raise error

    async def _ask_all(self, topics: Collection[str], timeout: float) -> dict[str, str | None]:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
                    answers = await asyncio.gather(*[self._of(node, topics) for node in nodes], return_exceptions=True)
                    found = [answer for answer in answers if isinstance(answer, dict)]
                    if found and all(answer == found[0] for answer in found):
                        return found[0]
                    if not found:
                        raise next(answer for answer in answers if isinstance(answer, BaseException))
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise kafka.KafkaTimeoutError(
                f"brokers did not agree on the ids of {', '.join(sorted(topics))} within {timeout:g} s"
            ) from None

    async def _of(self, node: int, topics: Collection[str]) -> dict[str, str | None]:
        group = ConnectionGroup.DEFAULT if self._member is None else ConnectionGroup.COORDINATION
        try:
            reply = await self._client.send(node, _Question(topics), group=group)
        except NotImplementedError:  # aiokafka's word for a broker that has none of a request's versions
            reply = await self._client.send(node, MetadataRequest([*topics], False), group=group)
            return {topic: None for code, topic, *_ in reply.topics if code not in UNKNOWN_TOPICS}
        found: dict[str, str | None] = {}
        for topic, (code, raw) in reply.topics.items():
            if code not in UNKNOWN_TOPICS:
                found[topic] = None if raw == _NONE else id_text(raw)
        return found
