"""Records as people and programs read them."""

import msgspec
import pytest

from octopus.events import Record, TopicPartition
from octopus.operations.records import is_match, readable
from octopus.patterns import Pattern


@pytest.mark.parametrize(
    ("value", "encoding", "decoded"),
    [
        (b'{"a": 1.10}', "json", {"a": 1.1}),
        (b"[1,\n 2]", "json", [1, 2]),
        (b"hello", "text", "hello"),
        (b"\xff\xfe", "base64", "//4="),
        (None, None, None),
        (b"[" * 5000, "text", "[" * 5000),
        (b'{"a": "\xff"}', "base64", "eyJhIjogIv8ifQ=="),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_record_is_one_json_line_that_says_how_its_value_is_written(
    value: bytes | None, encoding: str | None, decoded: object
) -> None:
    record = Record("t", 0, 7, 1500, b"k\xff", value, [("h", b"v"), ("none", None)])
    line = msgspec.json.encode(readable(TopicPartition("t", 0), record))
    assert b"\n" not in line
    found = msgspec.json.decode(line)
    assert (found["encoding"], found["value"]) == (encoding, decoded)
    assert (found["offset"], found["timestamp"], found["key"]) == (7, 1.5, "k\\xff")
    assert found["headers"] == [["h", "v"], ["none", None]]


def test_a_record_is_json_with_its_fields_in_their_order() -> None:
    record = Record("t", 1, 7, 1500, None, b'{"a":  1.10}', [])
    assert msgspec.json.encode(readable(TopicPartition("t", 1), record)) == (
        b'{"topic":"t","partition":1,"offset":7,"timestamp":1.5,"key":null,"headers":[],"encoding":"json",'
        b'"value":{"a":  1.10}}'
    )


@pytest.mark.parametrize(
    ("value", "matches"),
    [(b'{"n": 1}', True), (b'{"n": 2}', False), (b"no json", False), (None, False)],
    ids=["match", "no match", "no JSON", "tombstone"],
)
def test_a_pattern_chooses_json_and_without_one_everything_is_chosen(value: bytes | None, matches: bool) -> None:
    assert is_match(Pattern.compile('{"n": [1]}'), value) is matches
    assert is_match(None, value)
