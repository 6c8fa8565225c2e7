"""Text from outside is harmless once it has been here."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus.text import INDENT, block, first_few, printable_json, visible, visible_lines


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain", "plain"),
        (None, "-"),
        ("Grüße 東京 ☃".encode(), "Grüße 東京 ☃"),
        (b"\x1b[31mred\x07", r"\x1b[31mred\x07"),
        (b"a\nb\r\tc", r"a\nb\r\tc"),
        (b"\xff\x00end", r"\xff\x00end"),
        ("left\u202eright\u2028".encode(), r"left\u202eright\u2028"),
        ("no\u00a0break", "no\u00a0break"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ("\x9b31m", r"\x9b31m"),
    ],
    ids=repr,
)
def test_text_from_events_is_made_harmless(data: bytes | str | None, shown: str) -> None:
    assert visible(data) == shown


@given(st.text() | st.binary())
def test_whatever_it_was_it_stays_on_its_line_and_is_printable(data: str | bytes) -> None:
    assert all(character.isprintable() or character.isspace() for character in visible(data))
    assert len(visible(data).splitlines()) <= 1


@given(st.text())
def test_of_a_block_only_the_first_line_begins_at_the_margin(text: str) -> None:
    first, *more = block(text).split("\n")
    assert all(line.startswith(INDENT) for line in more)
    assert [first, *(line.removeprefix(INDENT) for line in more)] == visible_lines(text).split("\n")


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_means_the_same_and_is_printable(value: object) -> None:
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert all(character.isprintable() or character.isspace() for character in text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@pytest.mark.parametrize(
    ("count", "shown"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more")]
)
def test_of_many_names_the_first_few_are_said_and_how_many_more_there_are(count: int, shown: str) -> None:
    assert first_few([str(number) for number in range(count)], 3) == shown
