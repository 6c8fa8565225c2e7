"""Requests that ask by topic id, and their answers with names again."""

import struct
from typing import Any

from aiokafka.protocol.fetch import FetchRequest

from octopus.events import TopicPartition
from octopus.transports.kafka.compact import bytes_at, length_at, text_at
from octopus.transports.kafka.fetch_by_id import FetchById
from octopus.transports.kafka.topic_ids import id_bytes, id_text

OLD, NEW = id_text(b"o" * 16), id_text(b"n" * 16)
A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
EVERY_VERSION = {1: (4, 17)}
LAST_BY_NAME = {1: (4, 12)}


def asking(ids: dict[TopicPartition, str]) -> FetchById:
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for topic, number in ids:
        topics.setdefault(topic, []).append((number, 7, 1000))
    return FetchById(FetchRequest(100, 1, 5000, 1, list(topics.items()), "rack"), ids)


def answered(*topics: tuple[str, list[tuple[Any, ...]]]) -> Any:
    kind: Any = FetchById._CLASSES[-1].RESPONSE_TYPE  # type: ignore[misc]  # a tuple of any length
    return kind(0, 0, 0, [(id_bytes(topic_id), partitions) for topic_id, partitions in topics])


def row(number: int, code: int = 0) -> tuple[Any, ...]:
    return (number, code, 9, 9, 0, [], -1, b"")


def test_a_request_names_topics_by_their_ids() -> None:
    request: Any = asking({A0: OLD, A1: NEW, B0: OLD}).prepare(EVERY_VERSION)
    assert request.API_VERSION == 13
    view = memoryview(request.encode())
    assert struct.unpack_from(">iiiibii", view) == (-1, 100, 1, 5000, 1, 0, -1)
    count, at = length_at(view, 25)
    asked = []
    for _ in range(count):
        topic_id = id_text(bytes(bytes_at(view, at, 16)))
        inner, at = length_at(view, at + 16)
        for _ in range(inner):
            number, epoch, offset, last_epoch, start, size = struct.unpack_from(">iiqiqi", view, at)
            assert (epoch, offset, last_epoch, start, size) == (-1, 7, -1, -1, 1000)
            assert view[at + 32] == 0
            asked.append((topic_id, number))
            at += 33
        assert view[at] == 0
        at += 1
    assert sorted(asked) == sorted([(OLD, 0), (OLD, 0), (NEW, 1)])
    forgotten, at = length_at(view, at)
    rack, at = text_at(view, at)
    assert (forgotten, rack, bytes(view[at:])) == (0, "rack", b"\0")


def test_a_broker_that_knows_no_ids_is_asked_by_name() -> None:
    assert asking({A0: OLD}).prepare(LAST_BY_NAME).API_VERSION == 11


def test_an_answer_gets_its_names_back_and_errors_that_the_client_knows() -> None:
    ids = {A0: OLD, A1: OLD, B0: NEW}
    reply = asking(ids).with_names(answered((OLD, [row(0), row(1, 100)]), (NEW, [row(0, 103)])), ids)
    assert [(topic, [entry[:2] for entry in rows]) for topic, rows in reply.topics] == [
        ("a", [(0, 0), (1, 3)]),
        ("b", [(0, 3)]),
    ]


def test_what_was_asked_of_an_earlier_topic_is_left_out() -> None:
    reply = asking({A0: OLD, A1: OLD}).with_names(answered((OLD, [row(0), row(1)])), {A0: NEW, A1: OLD})
    assert [(topic, [entry[0] for entry in rows]) for topic, rows in reply.topics] == [("a", [1])]
    reply = asking({A0: OLD}).with_names(answered((OLD, [row(0)])), {})
    assert [rows for _, rows in reply.topics] == [[]]
