"""Primitive types survive the wire, and nothing a request says is believed beyond its bytes."""

import struct
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.broker.wire import MalformedRequest, Reader, Writer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
VALUES = st.one_of(
    st.tuples(st.just("int8"), st.integers(-(2**7), 2**7 - 1)),
    st.tuples(st.just("int16"), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just("int32"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("int64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("boolean"), st.booleans()),
    st.tuples(st.just("nullable_string"), st.none() | TEXT),
    st.tuples(st.just("string"), TEXT),
    st.tuples(st.just("blob"), st.binary(max_size=50)),
    st.tuples(st.just("uuid"), st.uuids()),
)


def write(values: list[tuple[str, object]], is_flexible: bool = False) -> bytes:
    writer = Writer(is_flexible)
    for kind, value in values:
        getattr(writer, kind.removeprefix("nullable_"))(value)
    return body(writer)


def body(writer: Writer) -> bytes:
    return b"".join(writer.frame(7))[8:]


@given(st.lists(VALUES))
def test_what_was_written_is_read(values: list[tuple[str, object]]) -> None:
    reader = Reader(write(values))
    assert [getattr(reader, kind)() for kind, _ in values] == [value for _, value in values]
    assert reader.remaining == 0


@given(st.lists(VALUES))
def test_what_was_written_in_the_flexible_encoding_is_read(values: list[tuple[str, object]]) -> None:
    reader = Reader(write(values, is_flexible=True)).become_flexible()
    assert [getattr(reader, kind)() for kind, _ in values] == [value for _, value in values]
    reader.tags()
    assert reader.remaining == 0


@given(st.lists(st.tuples(TEXT, st.lists(st.integers(0, 2**31 - 1)))), st.booleans())
def test_arrays_of_structs_survive_in_either_encoding(topics: list[tuple[str, list[int]]], is_flexible: bool) -> None:
    writer = Writer(is_flexible)
    writer.structs(topics, lambda topic: writer.string(topic[0]).array(topic[1], writer.int32)).structs(None, id)
    reader = Reader(body(writer))
    if is_flexible:
        reader.become_flexible()
    assert reader.structs(lambda: (reader.string(), reader.array(reader.int32))) == topics
    assert reader.nullable_structs(reader.string) is None


@pytest.mark.parametrize(
    ("written", "encoded"),
    [
        (lambda writer: writer.string("ab"), b"\x03ab"),
        (lambda writer: writer.string(None), b"\x00"),
        (lambda writer: writer.string("a" * 127), b"\x80\x01" + b"a" * 127),
        (lambda writer: writer.array([1, 2], writer.int8), b"\x03\x01\x02"),
        (lambda writer: writer.array(None, writer.int8), b"\x00"),
        (lambda writer: writer.structs([1, 2], writer.int8), b"\x03\x01\x00\x02\x00"),
        (lambda writer: writer.blob(b"xyz"), b"\x04xyz"),
        (lambda writer: writer.records([b"xyz", b"w"]), b"\x05xyzw"),
        (lambda writer: writer.uuid(UUID(int=258)), bytes(14) + b"\x01\x02"),
    ],
    ids=["string", "null", "long", "array", "null array", "structs", "bytes", "records", "uuid"],
)
def test_the_flexible_encoding_is_kafkas(written: Callable[[Writer], object], encoded: bytes) -> None:
    writer = Writer(is_flexible=True)
    written(writer)
    assert body(writer) == b"\x00" + encoded + b"\x00", "between the tagged fields of the header and of the body"


def test_tagged_fields_that_nobody_knows_are_passed_over() -> None:
    reader = Reader(b"\x02\x00\x03abc\x85\x01\x00" + b"\x02x").become_flexible()
    assert (reader.string(), reader.remaining) == ("x", 0)


@pytest.mark.parametrize(
    "lie", [b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x0f", b"\x05ab"], ids=["endless", "huge", "longer"]
)
@pytest.mark.parametrize("kind", ["string", "view", "tags", "structs"])
def test_a_length_that_lies_is_malformed_in_the_flexible_encoding(kind: str, lie: bytes) -> None:
    reader = Reader(b"\x00" + lie).become_flexible()
    with pytest.raises(MalformedRequest):
        reader.structs(reader.int64) if kind == "structs" else getattr(reader, kind)()


@given(st.lists(VALUES, min_size=1), st.data())
def test_a_cut_request_is_malformed_wherever_it_is_cut(values: list[tuple[str, object]], data: st.DataObject) -> None:
    whole = write(values)
    reader = Reader(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(MalformedRequest):
        _ = [getattr(reader, kind)() for kind, _ in values]


@given(st.binary(max_size=60), st.sampled_from(["string", "nullable_string", "blob", "view"]))
def test_arbitrary_bytes_are_read_or_malformed_and_nothing_else(data: bytes, kind: str) -> None:
    reader = Reader(data)
    with suppress(MalformedRequest):
        reader.array(lambda: (getattr(reader, kind)(), reader.nullable_array(reader.int16)))
    assert 0 <= reader.remaining <= len(data)


@pytest.mark.parametrize("count", [-2, 5, 2**31 - 1])
def test_an_array_larger_than_the_request_is_malformed_before_anything_is_read(count: int) -> None:
    reader = Reader(struct.pack(">i", count) + b"abcd")
    with pytest.raises(MalformedRequest, match="array"):
        reader.array(lambda: pytest.fail("an item was read"))


@pytest.mark.parametrize("length", [-2, 4])
def test_a_string_with_a_lying_length_is_malformed(length: int) -> None:
    with pytest.raises(MalformedRequest):
        Reader(struct.pack(">h", length) + b"abc").nullable_string()


def test_null_stands_for_nothing_where_nothing_is_allowed() -> None:
    null_array = struct.pack(">i", -1)
    assert Reader(null_array).nullable_array(lambda: 0) is None
    assert Reader(null_array).array(lambda: 0) == []
    assert Reader(null_array).blob() == b""
    with pytest.raises(MalformedRequest):
        Reader(struct.pack(">h", -1)).string()


def test_text_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="UTF-8"):
        Reader(struct.pack(">h", 1) + b"\xff").string()


def test_record_bytes_are_passed_on_without_a_copy() -> None:
    batch = bytes(1000)
    frame = Writer().int32(1).records([batch, batch]).int16(2).frame(9)
    assert [part for part in frame if part is batch] == [batch, batch]
    whole = b"".join(frame)
    assert struct.unpack_from(">ii", whole) == (len(whole) - 4, 9)
    assert Reader(whole[12:]).blob() == batch + batch
