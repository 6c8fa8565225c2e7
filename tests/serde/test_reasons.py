"""What is made of the words of libraries: better ones of those that are known, and the same of those that are not.

The words stand here as releases had them. So no other release can make a test fail; nor does it make a refusal any less right.
"""

import msgspec
import pydantic
import pytest

from octopus.serde.reasons import explain


@pytest.mark.parametrize(
    ("words", "reason", "field"),
    [
        ("Expected `int`, got `str` - at `$.size`", "$.size: expected int, got str", "$.size"),
        ("Object missing required field `size`", "$.size: required, but missing", "$.size"),
        (
            "Object missing required field `size` - at `$.files[0]`",
            "$.files[0].size: required, but missing",
            "$.files[0].size",
        ),
        ("Object contains unknown field `x`", "$.x: unknown field", "$.x"),
        ("Expected `object`, got `array`", "expected object, got array", ""),
        ("Invalid enum value 'blue'", "invalid enum value 'blue'", ""),
        ("Expected `str` of length <= 3", "expected str of length <= 3", ""),
        ("Somewhere in `size` there is\nsomething", "somewhere in size there is something", ""),
        ("", "", ""),
    ],
)
def test_the_field_is_taken_from_words_that_are_known_and_other_words_are_kept(
    words: str, reason: str, field: str
) -> None:
    explained = explain(msgspec.ValidationError(words), b'{"size": "1"}')
    assert (explained.reason, explained.field) == (reason, field)


def test_the_words_of_a_users_validator_are_never_taken_for_a_librarys() -> None:
    error = msgspec.ValidationError("Object missing required field `size` - at `$[0]`")
    error.__cause__ = ValueError()
    explained = explain(error, b"[{}]")
    assert (explained.reason, explained.field) == ("$[0]: Object missing required field `size`", "$[0]")


MALFORMED = "JSON is malformed: {} (byte {})"


@pytest.mark.parametrize(
    ("words", "value", "reason"),
    [
        ("Input data was truncated", b'{"a":1', "invalid JSON at byte 6: the data ends too early"),
        (
            "Input data was truncated",
            b'{"a":"\\ud800"}',
            "invalid JSON at byte 14: the data ends too early, or in a lone surrogate",
        ),
        (MALFORMED.format("trailing characters", 9), b'{"a":1} x', "invalid JSON at byte 8: trailing characters"),
        (MALFORMED.format("invalid character", 5), b'{"a":NaN}', "invalid JSON at byte 5: NaN is not JSON"),
        (MALFORMED.format("invalid number", 1), b"-Infinity", "invalid JSON at byte 1: Infinity is not JSON"),
        (
            MALFORMED.format("invalid utf-16 surrogate pair", 7),
            b'"\\udc00 "',
            "invalid JSON at byte 7: invalid utf-16 surrogate pair",
        ),
        (MALFORMED.format("invalid character", 9), b'{"\xff": x}', "invalid UTF-8 at byte 2 (0xff)"),
        (MALFORMED.format("invalid character", 1), b'{x: "\xff"}', "invalid JSON at byte 1: invalid character"),
        ("words of a later release", b"{x}", "invalid JSON: words of a later release"),
        ("words of a later release", b'{"\xff": 1}', "invalid UTF-8 at byte 2 (0xff)"),
        ("words of a later release", b"", "invalid JSON: the value is empty"),
        (
            "words of a later release",
            b"\xff\xfe{\0",
            "invalid JSON: it starts with a byte order mark; send UTF-8 without one",
        ),
    ],
)
def test_the_place_is_taken_from_words_that_are_known_and_other_words_are_kept(
    words: str, value: bytes, reason: str
) -> None:
    explained = explain(msgspec.DecodeError(words), value)
    assert (explained.reason, explained.field) == (reason, "")


@pytest.mark.parametrize(
    ("words", "value", "reason"),
    [
        (
            "MessagePack data is malformed: invalid opcode '\\xc1' (byte 0)",
            b"\xc1",
            "invalid MessagePack at byte 0: invalid opcode '\\xc1'",
        ),
        ("Input data was truncated", b"\x81\xa4path", "invalid MessagePack at byte 6: the data ends too early"),
        ("words of a later release", b"\xc1", "invalid MessagePack: words of a later release"),
    ],
)
def test_so_it_is_with_messagepack(words: str, value: bytes, reason: str) -> None:
    assert explain(msgspec.DecodeError(words), value, "MessagePack").reason == reason


class Model(pydantic.BaseModel):
    size: int
    parts: list[int] = []


def test_the_field_of_pydantic_is_not_taken_from_its_words() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"size": "x", "parts": [1, "y"]})
    theirs = caught.value.errors()[0]["msg"]
    explained = explain(caught.value, b"")
    assert explained.field == "$.size"
    assert explained.reason == f"$.size: {theirs[0].lower()}{theirs[1:]} (and 1 more)"
