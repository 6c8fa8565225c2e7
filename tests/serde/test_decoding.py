"""Decoding by annotation, and the reasons for refusing."""

import datetime
import decimal
import ipaddress
import pathlib
import subprocess
import sys
import typing
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from octopus.errors import ConfigurationError, DecodeError
from octopus.serde import JSON, MESSAGE_PACK, Decoder
from tests.serde.saying import THEIRS, says
from tests.serde.values import (
    Aliased,
    Checked,
    Circle,
    Colour,
    File,
    Folder,
    Holder,
    Model,
    Motor,
    OtherTag,
    Point,
    Reading,
    Renamed,
    RunId,
    Sample,
    Shade,
    Square,
    Strange,
    Stranger,
    T,
    Tagged,
    Text,
)


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        pytest.param(Any, b'{"a": [1, null]}', {"a": [1, None]}, id="Any"),
        pytest.param(object, b"[1]", [1], id="object"),
        pytest.param(T, b"[1]", [1], id="type variable"),
        pytest.param(dict, b'{"a": 1}', {"a": 1}, id="dict"),
        pytest.param(dict[str, int], b'{"a": 1}', {"a": 1}, id="dict of int"),
        pytest.param(list[int], b"[1, 2]", [1, 2], id="list of int"),
        pytest.param(int, b"7", 7, id="int"),
        pytest.param(float, b"7", 7.0, id="float"),
        pytest.param(bool, b"true", True, id="bool"),
        pytest.param(None, b"null", None, id="None"),
        pytest.param(str, "Zürich".encode(), "Zürich", id="str"),
        pytest.param(str, b'"quoted"', '"quoted"', id="str is not JSON"),
        pytest.param(str, b"", "", id="empty str"),
        pytest.param(str | None, b"null", "null", id="optional str"),
        pytest.param(RunId, b"run-1", "run-1", id="NewType of str"),
        pytest.param(Annotated[str, msgspec.Meta(max_length=3)], b"abc", "abc", id="constrained str"),
        pytest.param(bytes, b"\xff\x00", b"\xff\x00", id="bytes"),
        pytest.param(bytes, b"", b"", id="empty bytes"),
        pytest.param(bytearray, b"\xff", bytearray(b"\xff"), id="bytearray"),
        pytest.param(memoryview, b"\xff", memoryview(b"\xff"), id="memoryview"),
        pytest.param(File, b'{"path": "a", "size": 1, "extra": 0}', File("a", 1), id="Struct"),
        pytest.param(File | None, b"null", None, id="optional Struct, null"),
        pytest.param(Folder, b'{"files": [], "parent": {"files": []}}', Folder([], Folder([])), id="recursive Struct"),
        pytest.param(Renamed, b'{"fileSize": 1}', Renamed(1), id="renamed Struct"),
        pytest.param(Tagged | OtherTag, b'{"type": "other", "two": 2}', OtherTag(2), id="tagged union"),
        pytest.param(Sample, b'{"name": "a", "mass": 1}', Sample("a", 1.0), id="dataclass"),
        pytest.param(Motor, b'{"axis": "x", "position": 1.5}', Motor("x", 1.5), id="attrs"),
        pytest.param(Reading, b'{"sensor": "a", "value": 1.5}', {"sensor": "a", "value": 1.5}, id="TypedDict"),
        pytest.param(Point, b"[1, 2]", Point(1, 2), id="NamedTuple"),
        pytest.param(Colour, b'"red"', Colour.RED, id="Enum"),
        pytest.param(Shade, b'"dark"', Shade.DARK, id="str Enum is JSON"),
        pytest.param(Literal["a", 1], b'"a"', "a", id="Literal"),
        pytest.param(int | str, b'"a"', "a", id="union"),
        pytest.param(datetime.date, b'"2024-02-29"', datetime.date(2024, 2, 29), id="date"),
        pytest.param(Model, b'{"size": 1}', Model(size=1), id="pydantic"),
        pytest.param(Model | None, b"null", None, id="optional pydantic, null"),
        pytest.param(list[Model], b'[{"size": 1}]', [Model(size=1)], id="list of pydantic"),
        pytest.param(Circle | Square, b'{"side": 2}', Square(side=2), id="union of pydantic"),
        pytest.param(Aliased, b'{"fileSize": 2}', Aliased(fileSize=2), id="pydantic with alias"),
        pytest.param(int, b"1" * 400, int("1" * 400), id="huge int"),
        pytest.param(dict, b'{"a": 1, "a": 2}', {"a": 2}, id="duplicate key, the last one counts"),
        pytest.param(Model, b'{"size": 1, "size": 2}', Model(size=2), id="duplicate key, pydantic"),
        pytest.param(File, b'{"path": "a", "size": 1, "size": 2}', File("a", 2), id="duplicate key, Struct"),
        pytest.param(Model, b'{"size": 1, "note": "NaN"}', Model(size=1, note="NaN"), id="the text NaN"),
        pytest.param(Text, b'{"body": "' + b"x" * 2_000_000 + b'"}', Text("x" * 2_000_000), id="2 MB"),
    ],
)
def test_the_annotation_chooses_the_decoding(annotation: Any, value: bytes, expected: object) -> None:
    decoder = Decoder[Any](annotation)

    assert decoder.decode(value) == expected
    assert decoder.direct(value) == expected
    assert type(decoder.decode(value)) is type(expected)


def test_structs_are_decoded_by_msgspec_itself() -> None:
    assert isinstance(Decoder[File](File).direct.__self__, msgspec.json.Decoder)  # type: ignore[attr-defined]


def test_bytes_are_not_copied() -> None:
    value = b"some bytes"
    assert Decoder[bytes](bytes).decode(value) is value


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        pytest.param(File, b'{"path":"a","size":"1"}', THEIRS, id="wrong type"),
        pytest.param(File, b'{"path":"a"}', THEIRS, id="missing field"),
        pytest.param(File, b"[]", THEIRS, id="not an object"),
        pytest.param(Folder, b'{"files":[{"path":"a"}]}', THEIRS, id="nested"),
        pytest.param(Folder, b'{"files":[],"x":1}', THEIRS, id="unknown field"),
        pytest.param(Colour, b'"blue"', THEIRS, id="enum"),
        pytest.param(int, b"1.5", THEIRS, id="float for int"),
        pytest.param(int, b"1" * 5000, THEIRS, id="5000 digits"),
        pytest.param(float, b"1e400", THEIRS, id="beyond float"),
        pytest.param(Annotated[str, msgspec.Meta(max_length=3)], b"abcd", THEIRS, id="constrained str"),
        pytest.param(dict, b"", "invalid JSON: the value is empty", id="empty"),
        pytest.param(dict, b'{"a":1', "invalid JSON…", id="truncated"),
        pytest.param(dict, b'{"a":1} x', "invalid JSON…", id="trailing"),
        pytest.param(dict, b'{"a":NaN}', "invalid JSON…", id="NaN"),
        pytest.param(Any, b"-Infinity", "invalid JSON…", id="Infinity"),
        pytest.param(Model, b'{"size":1,"ratio":NaN}', "invalid JSON…", id="NaN, pydantic"),
        pytest.param(
            dict,
            b"\xef\xbb\xbf{}",
            "invalid JSON: it starts with a byte order mark; send UTF-8 without one",
            id="byte order mark",
        ),
        pytest.param(dict, b'{"a":"\xff"}', "invalid UTF-8 at byte 6 (0xff)", id="invalid UTF-8 in JSON"),
        pytest.param(str, b"a\xff", "invalid UTF-8 at byte 1 (0xff)", id="invalid UTF-8 in text"),
        pytest.param(str, b"\xed\xa0\x80", "invalid UTF-8 at byte 0 (0xed)", id="surrogate in text"),
        pytest.param(dict, b'{"a":"\\ud800"}', "invalid JSON…", id="lone surrogate at the end"),
        pytest.param(str | int, b'"\\udc00 "', "invalid JSON…", id="lone low surrogate"),
        pytest.param(Any, b"[" * 100_000, "invalid JSON: nested too deeply", id="depth bomb"),
        pytest.param(Any, b'{"a":' * 100_000, "invalid JSON: nested too deeply", id="depth bomb of objects"),
        pytest.param(
            Folder, b'{"files":[],"parent":' * 100_000, "invalid JSON: nested too deeply", id="typed depth bomb"
        ),
        pytest.param(Model, b'{"size":1,"note":' + b"[" * 100_000, THEIRS, id="depth bomb, pydantic"),
        pytest.param(Model, b'{"size":"x","ratio":"y"}', "$.size: … (and 1 more)", id="pydantic"),
        pytest.param(Aliased, b'{"fileSize":1,"parts":[{"size":1},{}]}', "$.parts[1].size: …", id="pydantic, nested"),
        pytest.param(Strange, b'{"size":0}', "$.size: …size must be positive", id="pydantic validator"),
        pytest.param(Strange, b'{"size":1}', "refused with ZeroDivisionError: …", id="pydantic validator that breaks"),
        pytest.param(Checked, b'{"size":0}', "size must be positive", id="validator"),
        pytest.param(list[Checked], b'[{"size":0}]', "…size must be positive", id="validator, nested"),
        pytest.param(Checked, b'{"size":1}', "refused with ZeroDivisionError: one", id="validator that breaks"),
        pytest.param(Checked, b'{"size":2}', "refused with Unprintable", id="exception that cannot be shown"),
        pytest.param(
            Checked,
            b'{"size":5}',
            "refused with ConnectionFailed: validators have no business with brokers",
            id="validator that claims a transport error",
        ),
    ],
)
def test_a_refusal_says_why(annotation: Any, value: bytes, expected: str) -> None:
    decoder = Decoder[Any](annotation)

    with pytest.raises(DecodeError) as caught:
        decoder.decode(value)

    assert says(caught.value.reason, expected), caught.value.reason
    assert not caught.value.field or caught.value.reason.startswith(f"{caught.value.field}: ")
    assert refuses(decoder.direct, value)


def refuses(direct: typing.Callable[[Any], Any], value: bytes | None) -> bool:
    """Whether the direct function raises, in whatever words the library below has."""
    try:
        direct(value)
    except Exception:
        return True
    return False


def test_reasons_stay_short_whatever_is_quoted() -> None:
    with pytest.raises(DecodeError) as caught:
        Decoder[Colour](Colour).decode(b'"' + b"x" * 100_000 + b'"')
    assert len(caught.value.reason) == 500


@pytest.mark.parametrize(("size", "kind"), [(3, MemoryError), (4, KeyboardInterrupt)])
def test_what_is_not_about_the_bytes_passes(size: int, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        Decoder[Checked](Checked).decode(b'{"size":%d}' % size)


TOMBSTONE_WELCOME = [Any, None, T, str | None, bytes | None, File | None, Model | None, dict | None, int | str | None]
TOMBSTONE_REFUSED = [File, Model, dict, str, bytes, bytearray, memoryview, int | str, list[Model], RunId]


@pytest.mark.parametrize("annotation", TOMBSTONE_WELCOME, ids=str)
def test_a_tombstone_is_none(annotation: Any) -> None:
    assert Decoder[Any](annotation).decode(None) is None


@pytest.mark.parametrize("annotation", TOMBSTONE_REFUSED, ids=str)
def test_a_tombstone_is_refused_where_none_is_not_expected(annotation: Any) -> None:
    with pytest.raises(
        DecodeError, match=r"tombstone: the record has no value and .* has no None; annotate .* \| None"
    ):
        Decoder[Any](annotation).decode(None)


@pytest.mark.parametrize("annotation", TOMBSTONE_WELCOME + TOMBSTONE_REFUSED, ids=str)
def test_the_direct_function_always_raises_on_a_tombstone(annotation: Any) -> None:
    assert refuses(Decoder[Any](annotation).direct, None)


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        (Stranger, "Stranger cannot be decoded: not a data type"),
        (list[Stranger], "Stranger inside .* cannot be decoded: not a data type"),
        (complex, "complex cannot be decoded: not a data type"),
        (Stranger | int, "Stranger inside .*Stranger | int cannot be decoded: not a data type"),
        (list[int] | list[str], "cannot be decoded: Type unions may not contain more than one array-like"),
        (Holder, "Model in Holder.model cannot be decoded: not a data type. A pydantic model can only be inside"),
        (list[Model] | Stranger, "cannot be decoded"),
        ("File", "cannot be decoded"),
        (bytes | str, "cannot be decoded"),
        (7, "7 cannot be decoded"),
    ],
    ids=str,
)
def test_what_cannot_be_decoded_is_known_before_the_first_record(annotation: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Decoder[Any](annotation)


def test_fields_that_refer_to_nothing_are_known_before_the_first_record() -> None:
    broken = msgspec.defstruct("Broken", [("other", "Missing")])
    with pytest.raises(ConfigurationError, match=r"Missing.*; define it before its use"):
        Decoder[Any](broken)
    unfinished = pydantic.create_model("Unfinished", other=("Missing", ...))
    with pytest.raises(ConfigurationError, match="Unfinished cannot be decoded: "):
        Decoder[Any](unfinished)


@pytest.mark.parametrize(
    ("annotation", "fields"),
    [
        (File, ("path", "size")),
        (File | None, ("path", "size")),
        (Renamed, ("fileSize",)),
        (Sample, ("name", "mass")),
        (Motor, ("axis", "position")),
        (Reading, ("sensor", "value")),
        (Aliased, ("fileSize", "parts")),
        (dict, None),
        (Tagged | OtherTag, None),
        (Circle | Square, None),
        (Point, None),
        (bytes, None),
        (Any, None),
    ],
    ids=str,
)
def test_a_decoder_knows_the_fields_of_one_class(annotation: Any, fields: tuple[str, ...] | None) -> None:
    known = Decoder[Any](annotation).fields
    assert (known and sorted(known)) == (fields and sorted(fields))


def test_neither_pydantic_nor_attrs_is_imported_for_the_sake_of_others() -> None:
    program = (
        "import sys, msgspec\n"
        "from octopus.serde import Decoder, encode\n"
        "Decoder(dict[str, int] | None).decode(encode({'a': 1}))\n"
        "print(sorted({'pydantic', 'attr', 'attrs'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Host(msgspec.Struct):
    home: pathlib.Path
    address: ipaddress.IPv4Address | None = None
    networks: list[ipaddress.IPv6Network] = []


@pytest.mark.parametrize("codec", [JSON, MESSAGE_PACK], ids=["JSON", "MessagePack"])
def test_paths_and_ip_addresses_are_text(codec: Any) -> None:
    host = Host(pathlib.Path("/data/a"), ipaddress.IPv4Address("10.0.0.1"), [ipaddress.IPv6Network("2001:db8::/32")])
    assert codec.decoder(dict)(codec.encode(host)) == {
        "home": "/data/a",
        "address": "10.0.0.1",
        "networks": ["2001:db8::/32"],
    }
    assert Decoder(Host, default=codec).decode(codec.encode(host)) == host


@pytest.mark.parametrize("codec", [JSON, MESSAGE_PACK], ids=["JSON", "MessagePack"])
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (dict[str, object], {"a": 1, "b": "two", "c": [None, 3.5]}),
        (list[object], ["one", 2, {"three": 3}]),
        (dict[str, list[object]], {"a": ["b"]}),
        (object | None, {"a": "b"}),
    ],
    ids=str,
)
def test_an_object_inside_an_annotation_is_whatever_comes(codec: Any, annotation: Any, value: Any) -> None:
    assert Decoder(annotation, default=codec).decode(codec.encode(value)) == value


@pytest.mark.parametrize("codec", [JSON, MESSAGE_PACK], ids=["JSON", "MessagePack"])
def test_an_object_beside_a_path_is_whatever_comes(codec: Any) -> None:
    class Found(msgspec.Struct):
        path: pathlib.Path
        about: dict[str, object]

    found = Found(pathlib.Path("/data"), {"text": "x", "number": 1, "nothing": None})
    assert Decoder(Found, default=codec).decode(codec.encode(found)) == found


def test_what_is_no_ip_address_is_refused_with_the_field() -> None:
    decoder = Decoder(Host)
    with pytest.raises(DecodeError, match=r"^\$\.address: .*'10\.0\.0'"):
        decoder.decode(b'{"home": "/", "address": "10.0.0"}')
    with pytest.raises(DecodeError, match=r"^\$\.address: expected str, got int$"):
        decoder.decode(b'{"home": "/", "address": 7}')


def test_a_decimal_is_exact_but_for_numbers_inside_a_pydantic_model() -> None:
    digits = "0.1234567890123456789012345678901"

    class Exact(msgspec.Struct):
        value: decimal.Decimal

    class Model(pydantic.BaseModel):
        value: decimal.Decimal

    assert str(Decoder(Exact).decode(f'{{"value": {digits}}}'.encode()).value) == digits
    assert str(Decoder(Model).decode(f'{{"value": "{digits}"}}'.encode()).value) == digits
    assert str(Decoder(Model).decode(f'{{"value": {digits}}}'.encode()).value) != digits
