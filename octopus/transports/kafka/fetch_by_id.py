"""Fetches by topic id: Fetch 13 (KIP-516), which aiokafka lacks.

Who fetches by name goes on reading at its old position when a topic is deleted and made again. The new topic has another id;
so a broker that is asked by id refuses, and nothing of the new topic is ever taken for what follows in the old one. Brokers
that do not know version 13 (before Kafka 3.1) are asked by name.
"""

import struct
from collections.abc import Mapping
from typing import Any

from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.protocol.types import Schema

from octopus.events import TopicPartition
from octopus.transports.kafka.compact import length_of, text_of
from octopus.transports.kafka.engine import fetch_limits, speaking
from octopus.transports.kafka.topic_ids import id_bytes, id_text

NO_SUCH_TOPIC = 3
"""What aiokafka understands, in the place of what it has never heard of."""

REFUSED = (100, 103)
"""Error codes: there is no topic of this id, or the partition belongs to one of another."""

_HEAD = struct.Struct(">iiiibii")  # replica, wait, least and most bytes, isolation, session, its epoch
_PARTITION = struct.Struct(">iiqiqi")  # number, leader epoch, offset, epoch of the last record, log's start, most bytes
_NO_TAGS = b"\0"


class _Body:
    """A request's bytes, written already."""

    @staticmethod
    def encode(value: bytes) -> bytes:
        return value

    @staticmethod
    def decode(data: Any) -> bytes:
        body: bytes = data.read()
        return body

    @staticmethod
    def repr(value: bytes) -> str:
        return f"{len(value)} bytes"


_body: Any = _Body


class _Answer(FetchResponse_v11):
    """The fields of version 11, but ids for names; what is new comes tagged. `fetched.read_answer` reads it."""

    API_VERSION = 13


class _Question(RequestStruct):
    API_KEY = 1
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(("body", _body))


@speaking(_Question)
class FetchById(FetchRequest):
    """Asks by topic id where the broker can be asked so, else as the request that it is made from.

    Args:
        asked: aiokafka's request.
        topic_ids: The id of each of its partitions' topics.
    """

    def __init__(self, asked: FetchRequest, topic_ids: Mapping[TopicPartition, str]) -> None:
        self.__dict__.update(vars(asked))
        self._topic_ids = topic_ids

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in a version."""
        if request_struct_class is not _Question:
            return super().build(request_struct_class)
        by_id: dict[str, list[bytes]] = {}
        for topic, partitions in self.topics:
            for number, offset, most_bytes in partitions:
                entry = _PARTITION.pack(number, -1, offset, -1, -1, most_bytes) + _NO_TAGS
                by_id.setdefault(self._topic_ids[TopicPartition(topic, number)], []).append(entry)
        max_wait, least, most, isolation, rack = fetch_limits(self)
        parts = [
            _HEAD.pack(-1, max_wait, least, most, isolation, 0, -1),
            length_of(len(by_id)),
        ]
        for topic_id, entries in by_id.items():
            parts += [id_bytes(topic_id), length_of(len(entries)), *entries, _NO_TAGS]
        parts += [length_of(0), text_of(rack), _NO_TAGS]  # nothing forgotten
        return _Question(b"".join(parts))

    def with_names(self, reply: Any, current: Mapping[TopicPartition, str]) -> Any:
        """Put names into an answer, and errors that aiokafka knows.

        Args:
            reply: As it came.
            current: The ids by now: what was asked of another topic is left out.
        """
        if reply.API_VERSION < _Question.API_VERSION:
            return reply
        names = {topic_id: topic for (topic, _), topic_id in self._topic_ids.items()}
        topics = []
        for raw, partitions in reply.topics:
            topic_id = id_text(raw)
            topic = names[topic_id]
            wanted = [each for each in partitions if current.get(TopicPartition(topic, each[0])) == topic_id]
            topics.append((topic, [_in_old_words(partition) for partition in wanted]))
        reply.topics = topics
        return reply


def _in_old_words(partition: tuple[Any, ...]) -> tuple[Any, ...]:
    number, code, *rest = partition
    return (number, NO_SUCH_TOPIC, *rest) if code in REFUSED else partition
