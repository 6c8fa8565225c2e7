"""Publishing: what becomes of a value, and what cannot be written."""

from typing import Any

import pytest

from octopus.serde import MESSAGE_PACK, encode
from tests.serde.values import Aliased, Circle, Colour, File, Motor, Point, RunId, Sample, Shade, Stranger


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        pytest.param(None, None, id="tombstone"),
        pytest.param("Zürich", "Zürich".encode(), id="text"),
        pytest.param(RunId("run"), b"run", id="NewType"),
        pytest.param(b"\xff", b"\xff", id="bytes"),
        pytest.param(bytearray(b"\xff"), b"\xff", id="bytearray"),
        pytest.param(memoryview(b"\xff"), b"\xff", id="memoryview"),
        pytest.param({"a": 1}, b'{"a":1}', id="dict"),
        pytest.param([1, "a"], b'[1,"a"]', id="list"),
        pytest.param(7, b"7", id="int"),
        pytest.param(False, b"false", id="bool"),
        pytest.param(float("nan"), b"null", id="NaN"),
        pytest.param(File("a", 1), b'{"path":"a","size":1}', id="Struct"),
        pytest.param(Sample("a", 1.5), b'{"name":"a","mass":1.5}', id="dataclass"),
        pytest.param(Motor("x", 1.5), b'{"axis":"x","position":1.5}', id="attrs"),
        pytest.param(Point(1, 2), b"[1,2]", id="NamedTuple"),
        pytest.param(Colour.RED, b'"red"', id="Enum"),
        pytest.param(Shade.DARK, b'"dark"', id="str Enum"),
        pytest.param(Circle(radius=1), b'{"radius":1.0}', id="pydantic"),
        pytest.param(Aliased(fileSize=1), b'{"fileSize":1,"parts":[]}', id="pydantic by alias"),
        pytest.param({"a": Circle(radius=1)}, b'{"a":{"radius":1.0}}', id="pydantic inside"),
    ],
)
def test_values_are_written_so_that_they_can_be_read_again(value: Any, stored: bytes | None) -> None:
    assert encode(value) == stored


def test_bytes_are_published_without_a_copy() -> None:
    value = b"some bytes"
    assert encode(value) is value


class Array:
    def tolist(self) -> list[int]:
        return [1]


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            Stranger(),
            "A value of type Stranger cannot be published as application/json: .*Stranger is not a data type$",
        ),
        (Array(), r"Array is not a data type; convert it first, for example with .tolist\(\)"),
        (
            {"a": Stranger()},
            "A value of type dict cannot be published as application/json: .*Stranger is not a data type",
        ),
        ("\ud800", "Text with a lone surrogate, at character 0, cannot be published"),
        (["\ud800"], "A value of type list cannot be published as application/json: .+"),
        (
            {(1, 2): 3},
            "A value of type dict cannot be published as application/json: builtins.tuple is not a data type",
        ),
        (endless(), "A value of type list nested too deeply cannot be published"),
    ],
    ids=["class", "array", "inside", "surrogate", "surrogate inside", "key", "endless"],
)
def test_what_cannot_be_written_is_a_type_error(value: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        encode(value)


def test_integers_beyond_64_bits_do_not_fit_messagepack() -> None:
    assert encode(2**64) == b"18446744073709551616"
    with pytest.raises(TypeError, match="A value of type int cannot be published as application/msgpack"):
        encode(2**64, MESSAGE_PACK)
