"""Answers to fetches read as aiokafka reads them, in each version, and noise is refused."""

import contextlib
import io
import struct
from typing import Any

import pytest
from aiokafka.protocol import fetch
from hypothesis import given
from hypothesis import strategies as st

from octopus.transports.kafka.compact import length_of
from octopus.transports.kafka.fetch_by_id import FetchById
from octopus.transports.kafka.fetched import COMPACT, VERSIONS, read_answer, throttle_time

int16, int32, int64 = (st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (16, 32, 64))
KINDS = {version: getattr(fetch, f"FetchResponse_v{version}") for version in VERSIONS if version < COMPACT}

KIND_13: Any = FetchById._CLASSES[-1].RESPONSE_TYPE  # type: ignore[misc]  # a tuple of any length


# answers


def partitions(version: int) -> st.SearchStrategy[Any]:
    """Partitions of an answer, in the order of aiokafka's schema."""
    aborted = st.none() | st.lists(st.tuples(int64, int64), max_size=3)
    fields: list[Any] = [int32, int16, int64, int64, *([int64] if version >= 5 else []), aborted]
    fields += [int32] if version >= 11 else []
    return st.tuples(*fields, st.none() | st.binary(max_size=200) | st.just(bytes(3000)))


@st.composite
def answers(draw: st.DrawFn) -> Any:
    """A response of any version, perhaps with null arrays, and its frame."""
    version = draw(st.sampled_from([*KINDS]))
    topics = draw(
        st.none()
        | st.lists(st.tuples(st.text(max_size=20), st.none() | st.lists(partitions(version), max_size=3)), max_size=3)
    )
    session = (draw(int16), draw(int32)) if version >= 7 else ()
    kind = KINDS[version]
    return kind, struct.pack(">i", draw(int32)) + kind(draw(int32), *session, topics).encode()


def plain(value: Any) -> Any:
    """Return a response as one can compare it: nothing is like none of something."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    return value


def without_nulls(topics: Any) -> Any:
    """Return topics as aiokafka decodes them, null arrays and bytes being empty ones."""
    return [
        (
            name,
            [
                tuple(
                    (b"" if index == len(row) - 1 else []) if field is None else field
                    for index, field in enumerate(row)
                )
                for row in rows or []
            ],
        )
        for name, rows in topics or []
    ]


@given(answers())
def test_an_answer_reads_as_aiokafka_reads_it(answer: Any) -> None:
    kind, frame = answer
    expected = kind.decode(io.BytesIO(frame[4:]))
    buffer = bytearray(frame)
    for data in (frame, memoryview(buffer)):
        got = read_answer(kind, data)
        assert type(got) is kind
        assert got.throttle_time_ms == expected.throttle_time_ms
        if kind.API_VERSION >= 7:
            assert (got.error_code, got.session_id) == (expected.error_code, expected.session_id)
        assert plain(got.topics) == plain(without_nulls(expected.topics))
    assert buffer == frame


@given(answers(), st.data())
def test_an_answer_that_is_cut_anywhere_is_an_error_and_no_other_answer(answer: Any, data: st.DataObject) -> None:
    kind, frame = answer
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises((struct.error, ValueError)):
        read_answer(kind, memoryview(frame)[:cut])


@given(answers(), st.data())
def test_an_answer_of_noise_is_read_or_refused(answer: Any, data: st.DataObject) -> None:
    kind, frame = answer
    noisy = bytearray(frame)
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=8)):
        noisy[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(struct.error, ValueError):
        read_answer(kind, noisy)


# answers in the compact encoding

tags = st.dictionaries(st.integers(0, 300), st.binary(max_size=20), max_size=2)


def written_tags(given: dict[int, bytes]) -> bytes:
    fields = [length_of(tag - 1) + length_of(len(given[tag]) - 1) + given[tag] for tag in sorted(given)]
    return length_of(len(fields) - 1) + b"".join(fields)


@st.composite
def compact_answers(draw: st.DrawFn) -> tuple[Any, bytes]:
    """What an answer of version 13 says, and its frame."""
    throttle, code, session = draw(int32), draw(int16), draw(int32)
    written = struct.pack(">i", draw(int32)) + written_tags(draw(tags)) + struct.pack(">ihi", throttle, code, session)
    topics = []
    count = draw(st.integers(0, 3))
    written += length_of(count)
    for _ in range(count):
        topic_id, rows = draw(st.binary(min_size=16, max_size=16)), draw(st.lists(partitions(11), max_size=3))
        written += topic_id + length_of(len(rows))
        for *head, aborted, replica, records in rows:
            written += struct.pack(">ihqqq", *head)
            written += b"\0" if aborted is None else length_of(len(aborted))
            for entry in aborted or ():
                written += struct.pack(">qq", *entry) + written_tags(draw(tags))
            written += struct.pack(">i", replica)
            written += b"\0" if records is None else length_of(len(records)) + records
            written += written_tags(draw(tags))
        written += written_tags(draw(tags))
        topics.append((topic_id, rows))
    return (throttle, code, session, without_nulls(topics)), written + written_tags(draw(tags))


@given(compact_answers())
def test_a_compact_answer_says_what_was_written(answer: tuple[Any, bytes]) -> None:
    (throttle, code, session, topics), frame = answer
    got = read_answer(KIND_13, frame)
    assert (got.throttle_time_ms, got.error_code, got.session_id) == (throttle, code, session)
    assert plain(got.topics) == plain(topics)
    assert throttle_time(13, frame) == throttle


@given(compact_answers(), st.data())
def test_a_compact_answer_that_is_cut_or_noisy_is_read_or_refused(
    answer: tuple[Any, bytes], data: st.DataObject
) -> None:
    _, frame = answer
    with contextlib.suppress(struct.error, ValueError):
        read_answer(KIND_13, frame[: data.draw(st.integers(0, len(frame) - 1))])
    noisy = bytearray(frame)
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=8)):
        noisy[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(struct.error, ValueError):
        read_answer(KIND_13, noisy)


def test_a_topic_without_a_name_is_refused() -> None:
    frame = struct.pack(">iiihi", 1, 0, 1, -1, 0)
    with pytest.raises(ValueError, match="no name"):
        read_answer(KINDS[4], frame)


def answer_with(*records: bytes) -> bytes:
    rows = [(number, 0, 9, 9, 0, [], -1, data) for number, data in enumerate(records)]
    return struct.pack(">i", 1) + bytes(KINDS[11](0, 0, 0, [("topic", rows)]).encode())


def test_records_are_views_of_the_frame() -> None:
    frame = bytearray(answer_with(b"large" * 1000, b"small"))
    ((_, partitions),) = read_answer(KINDS[11], memoryview(frame)).topics
    assert [type(partition[-1]) for partition in partitions] == [memoryview, memoryview]
    assert [bytes(partition[-1]) for partition in partitions] == [b"large" * 1000, b"small"]
