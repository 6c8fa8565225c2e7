"""What is printed: harmless, plain when piped, exact as JSON."""

import io

import msgspec
import pytest
from rich.console import Console

from octopus.cli.screen import spell_bytes, spell_rate, table
from octopus.events import Record, TopicPartition
from octopus.operations.records import readable


def test_a_table_that_is_piped_is_aligned_plain_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", ">count"), [("a" * 200, 7), ("[bold]b", 12345)])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == f"{'NAME':<200}  COUNT"
    assert first == f"{'a' * 200}      7"
    assert second == f"{'[bold]b':<200}  12345"


def test_on_a_terminal_what_may_be_long_is_cut_to_what_the_other_columns_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = io.StringIO()
    console = Console(file=paper, force_terminal=True, width=60, highlight=False, color_system=None)
    monkeypatch.setattr("octopus.cli.screen.output", lambda: console)
    table(("place", "reason…"), [("t.dead-letter[0]@1", "x" * 3000), ("t.dead-letter[0]@2", "short")])
    lines = [line.rstrip() for line in paper.getvalue().splitlines() if line.strip()]
    assert lines[0].split() == ["place", "reason"]
    assert len(lines[2]) == 60
    assert lines[2].endswith("xxx…")
    assert lines[3].split() == ["t.dead-letter[0]@2", "short"]
    assert len(lines) == 4


def test_a_long_text_that_is_piped_does_not_pad_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    table(("place", "reason…"), [("a", "x" * 3000)])
    assert capsys.readouterr().out.splitlines() == ["PLACE  REASON", f"a      {'x' * 3000}"]


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [
        (2, 3.0, ""),
        (5000, 0.4, ""),
        (100, 1.0, ", 100 a second"),
        (60_000, 2.0, ", 30,000 a second"),
    ],
    ids=["a few events", "a moment", "just enough", "many events"],
)
def test_a_rate_is_said_only_where_it_says_something(count: int, seconds: float, text: str) -> None:
    assert spell_rate(count, seconds) == text


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


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (5_500_000, "5.5 MB"), (2.5e15, "2500.0 TB")]
)
def test_sizes_are_spelled(size: float, text: str) -> None:
    assert spell_bytes(size) == text
