"""Content types choose the codec, and an application brings its own."""

import typing
from typing import Any

import msgspec
import pytest

from octopus.errors import CodecUnavailable, ConfigurationError, ConnectionFailed, DecodeError
from octopus.serde import JSON, MESSAGE_PACK, Decoder, encode
from tests.serde.saying import THEIRS, says
from tests.serde.values import File, Model

JSON_TYPES = [
    b"application/json",
    b"application/json; charset=utf-8",
    b"application/json;charset=utf-8",
    b"Application/JSON",
    b"text/json",
    b"application/geo+json",
    b"",
    None,
]


@pytest.mark.parametrize("content_type", JSON_TYPES, ids=str)
def test_json_goes_by_many_names(content_type: bytes | None) -> None:
    decoder = Decoder[File](File)
    for _ in range(2):
        assert decoder.decode(b'{"path":"a","size":1}', [("content-type", content_type)]) == File("a", 1)


class Loose(msgspec.Struct):
    """What any JSON object decodes into."""

    path: str = ""


CLOUD_EVENTS = [
    b"application/cloudevents+json",
    b"application/cloudevents+json; charset=utf-8",
    b"Application/CloudEvents-Batch+JSON",
    b"application/cloudevents",
]


@pytest.mark.parametrize("content_type", CLOUD_EVENTS, ids=str)
@pytest.mark.parametrize("annotation", [Loose, Any, dict], ids=str)
def test_the_envelope_of_a_cloud_event_is_not_taken_for_the_event(content_type: bytes, annotation: Any) -> None:
    with pytest.raises(
        DecodeError, match="is a structured CloudEvent, whose envelope is not taken off: publish it in the binary"
    ):
        Decoder[Any](annotation).decode(b'{"specversion":"1.0","data":{"path":"a"}}', [("content-type", content_type)])


def test_bytes_and_a_codec_of_the_app_take_cloud_events() -> None:
    class CloudEvents:
        content_type = "application/cloudevents+json"

        def decoder(self, annotation: Any) -> Any:
            return lambda value: msgspec.json.decode(value)["data"]

        def encode(self, value: Any) -> bytes:
            return b""

    headers = [("content-type", CLOUD_EVENTS[1])]
    assert Decoder[bytes](bytes).decode(b'{"data":1}', headers) == b'{"data":1}'
    assert Decoder[Any](Any, [CloudEvents()]).decode(b'{"data":1}', headers) == 1


@pytest.mark.parametrize("content_type", [b"application/msgpack", b"application/x-msgpack", b"application/x+msgpack"])
@pytest.mark.parametrize(("annotation", "value"), [(File, File("a", 1)), (Model, Model(size=1)), (Any, {"a": [1]})])
def test_messagepack_is_read_when_the_header_says_so(content_type: bytes, annotation: Any, value: Any) -> None:
    decoder = Decoder[Any](annotation)
    stored = encode(value, MESSAGE_PACK)
    for _ in range(2):
        assert decoder.decode(stored, [("other", b"x"), ("Content-Type", content_type)]) == value


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (File, b"\x81\xa4path", "invalid MessagePack…"),
        (File, b"\xc1", "invalid MessagePack…"),
        (File, b"\x82\xa4path\xa1a\xa4size\xa1a", THEIRS),
        (Any, b"\x91" * 100_000, "invalid MessagePack: nested too deeply"),
        (Model, b"\x81\xa4size\xa1a", "$.size: …"),
    ],
)
def test_bad_messagepack_is_refused(annotation: Any, value: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Decoder[Any](annotation).decode(value, [("content-type", b"application/msgpack")])
    assert says(caught.value.reason, reason), caught.value.reason


@pytest.mark.parametrize(
    "content_type", [b"application/avro", b"\xff\xfe\x00", b"+", b"x" * 10_000], ids=lambda c: c[:9]
)
def test_an_unknown_content_type_is_refused_by_name(content_type: bytes) -> None:
    with pytest.raises(DecodeError, match=r"is unknown; known are application/json, application/msgpack"):
        Decoder[File](File).decode(b"{}", [("content-type", content_type)])


def test_raw_annotations_take_any_content_type() -> None:
    headers = [("content-type", b"application/avro")]
    assert Decoder[bytes](bytes).decode(b"\x00\x01", headers) == b"\x00\x01"
    assert Decoder[str](str).decode(b"text", headers) == "text"


def test_ten_thousand_strange_headers_do_not_matter() -> None:
    headers: list[tuple[str, bytes | None]] = [(f"header-{n}", b"\xff\x00" if n % 2 else None) for n in range(10_000)]
    headers += [("content-type", b"application/avro"), ("content-type", b"application/json")]
    assert Decoder[int](int).decode(b"1", headers) == 1


class Shouting:
    """A codec of an application."""

    content_type = "application/x-shouting"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def decoder(self, annotation: Any) -> typing.Callable[[bytes], Any]:
        if annotation is int:
            raise TypeError("no numbers")

        def decode(value: bytes) -> Any:
            if self.error:
                raise self.error
            return value.decode().upper()

        return decode

    def encode(self, value: Any) -> bytes:
        return f"{value}!".encode()


SHOUTED = [("content-type", b"application/x-shouting; version=1")]


def test_an_application_brings_its_own_codec() -> None:
    assert Decoder[Any](Any, codecs=[Shouting()]).decode(b"a", SHOUTED) == "A"
    assert Decoder[Any](Any, codecs=[Shouting()]).decode(b'"a"') == "a"
    assert Decoder[Any](Any, default=Shouting()).decode(b"a") == "A"
    assert encode(1, Shouting()) == b"1!"


def test_a_codec_may_take_the_place_of_a_built_in_one() -> None:
    codec = Shouting()
    codec.content_type = "application/json"
    assert Decoder[Any](Any, codecs=[codec]).decode(b"a", [("content-type", b"application/json")]) == "A"


def test_what_a_codec_raises_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="refused with KeyError: 'schema 7'"):
        Decoder[Any](Any, codecs=[Shouting(KeyError("schema 7"))]).decode(b"a", SHOUTED)


def test_a_codec_that_does_not_support_the_annotation_says_so_only_for_its_records() -> None:
    decoder = Decoder[int](int, codecs=[Shouting()])
    assert decoder.decode(b"1") == 1
    with pytest.raises(DecodeError, match="application/x-shouting cannot be decoded into int: no numbers"):
        decoder.decode(b"1", SHOUTED)
    with pytest.raises(ConfigurationError, match="int cannot be decoded: no numbers"):
        Decoder[int](int, default=Shouting())


def test_a_schema_registry_that_is_down_is_not_the_bytes_fault() -> None:
    with pytest.raises(CodecUnavailable, match="application/x-shouting cannot be decoded for now: registry down"):
        Decoder[Any](Any, codecs=[Shouting(ConnectionFailed("registry down"))]).decode(b"a", SHOUTED)


def test_the_codecs_are_codecs() -> None:
    from octopus.serde import Codec

    codecs: list[Codec] = [JSON, MESSAGE_PACK]
    assert [codec.content_type for codec in codecs] == ["application/json", "application/msgpack"]
