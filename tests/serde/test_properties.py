"""What holds for all values and for all bytes."""

import dataclasses
from typing import Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.errors import DecodeError
from octopus.serde import MESSAGE_PACK, Decoder, encode

MESSAGE_PACK_HEADERS = [("content-type", b"application/msgpack")]

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
untyped = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(texts, inside, max_size=4),
    max_leaves=20,
)


class Struct(msgspec.Struct):
    name: str
    size: int
    ratio: float
    more: list["Struct"] = []


@dataclasses.dataclass
class Data:
    name: str
    tags: dict[str, int]


@attrs.define
class Motor:
    name: str
    position: float | None


class Reading(TypedDict):
    name: str
    value: int


class Point(NamedTuple):
    x: int
    y: float


class Model(pydantic.BaseModel):
    name: str
    sizes: list[int] = []
    anything: Any = None


structs = st.builds(Struct, texts, integers, floats, st.lists(st.builds(Struct, texts, integers, floats), max_size=3))
TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, untyped.filter(lambda value: not isinstance(value, str))),
    (dict[str, Any], st.dictionaries(texts, untyped, max_size=4)),
    (Struct, structs),
    (Struct | None, structs | st.none()),
    (Data, st.builds(Data, texts, st.dictionaries(texts, integers, max_size=4))),
    (Motor, st.builds(Motor, texts, floats | st.none())),
    (Reading, st.fixed_dictionaries({"name": texts, "value": integers})),
    (Point, st.builds(Point, integers, floats)),
    (Model, st.builds(Model, name=texts, sizes=st.lists(integers, max_size=3))),
    (list[Model], st.lists(st.builds(Model, name=texts), max_size=3)),
    (Literal[1, 2], st.sampled_from([1, 2])),
]
ANNOTATIONS: list[Any] = [*(annotation for annotation, _ in TYPED), str, bytes, str | None, int, list[float]]


@pytest.mark.parametrize(("annotation", "values"), TYPED, ids=lambda case: getattr(case, "__name__", "")[:20])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_published_is_what_arrives(
    annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value, decoder = data.draw(values), Decoder[Any](annotation)

    assert decoder.decode(encode(value)) == value
    assert decoder.decode(encode(value, MESSAGE_PACK), MESSAGE_PACK_HEADERS) == value


@given(text=texts, data=st.binary())
def test_text_and_bytes_travel_as_they_are(text: str, data: bytes) -> None:
    assert Decoder[str](str).decode(encode(text)) == text
    assert Decoder[bytes](bytes).decode(encode(data)) == data
    assert Decoder[bytes](bytes).decode(encode(text)) == text.encode()


def json_like() -> st.SearchStrategy[bytes]:
    """Bytes that get far into a parser: pieces of JSON in any order."""
    pieces = [b"{", b"}", b"[", b"]", b",", b":", b'"', b'"name"', b'"size":1', b"\\ud800", b"\\u", b"\xff", b"NaN"]
    pieces += [
        b"-Infinity",
        b"1e999",
        b"9" * 30,
        b"9" * 5000,
        b"null",
        b"true",
        b"\x00",
        b"\xef\xbb\xbf",
        b" ",
        b"-",
        b"0",
    ]
    return st.lists(st.sampled_from(pieces), max_size=12).map(b"".join)


@pytest.mark.parametrize("headers", [[], MESSAGE_PACK_HEADERS], ids=["JSON", "MessagePack"])
@given(value=st.binary(max_size=60) | json_like(), data=st.data())
@settings(max_examples=400, deadline=None)
def test_random_bytes_raise_nothing_but_decode_errors(headers: Any, value: bytes, data: st.DataObject) -> None:
    decoder = data.draw(st.sampled_from(DECODERS))
    reason = refusal(decoder, value, headers)
    assert reason is None or 0 < len(reason) <= 500
    assert reason is None or "\n" not in reason


DECODERS = [Decoder[Any](annotation) for annotation in ANNOTATIONS]


@given(content_type=st.binary(max_size=40) | st.none(), name=texts | st.just("content-type"))
def test_random_headers_raise_nothing_but_decode_errors(content_type: bytes | None, name: str) -> None:
    reason = refusal(Decoder(Any), b"1", [(name, content_type)])
    assert reason is None or "content-type" in reason or "MessagePack" in reason


@given(structs, st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_record_is_refused_or_still_a_struct(value: Struct, data: st.DataObject) -> None:
    stored = bytearray(encode(value) or b"")
    stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    decoder = Decoder[Struct](Struct)
    assert refusal(decoder, bytes(stored)) or isinstance(decoder.decode(bytes(stored)), Struct)


def refusal(decoder: Decoder[Any], value: bytes, headers: Any = ()) -> str | None:
    """Return why the bytes were refused; anything but a `DecodeError` passes through and fails the test."""
    try:
        decoder.decode(value, headers)
    except DecodeError as error:
        return error.reason
    return None
