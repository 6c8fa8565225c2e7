"""`publish` and `consume`: what goes in comes out."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Octopus, Start


def read_all(octopus: Octopus, topic: str, *more: str) -> list[str]:
    result = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--raw", *more)
    assert result.code == 0, result.err
    return result.out.splitlines()


def test_arguments_are_published_character_for_character(octopus: Octopus, topic: str) -> None:
    result = octopus("publish", topic, '{"a":  1.10}', "plain text", "--partition", "0")
    assert (result.code, result.err) == (0, "")
    assert f"Published 2 events (22 bytes) to {topic} in" in result.out
    assert read_all(octopus, topic) == ['{"a":  1.10}', "plain text"]


def test_one_event_says_where_it_went(octopus: Octopus, topic: str) -> None:
    assert octopus("publish", topic, "{}", "--partition", "2").out == f"Published to {topic}[2]@0 (2 bytes).\n"


def test_the_report_as_json_has_counts_and_offsets(octopus: Octopus, topic: str) -> None:
    report = octopus("publish", topic, "1", "2", "--count", "3", "--partition", "1", "--json").json
    assert report.pop("seconds") > 0
    assert report == {"topic": topic, "count": 6, "bytes": 6, "offsets": {"1": {"first": 0, "last": 5}}}


def test_key_and_headers_travel_along(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, "{}", "--key", "k1", "--header", "source=beam=7", "-H", "empty=")
    (event,) = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--json").lines
    assert (event["key"], event["headers"]) == ("k1", [["source", "beam=7"], ["empty", ""]])
    shown = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--keys", "--headers").out
    assert shown.rstrip().endswith("key k1  source=beam=7  empty=  {}")
    assert "\x1b" not in shown


def test_lines_of_a_file_are_published_with_keys_of_their_own(octopus: Octopus, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(f'{{"n": {n}, "d": "d{n % 3}"}}\n' for n in range(5000)) + '\n{"n": 5000, "d": 7}')
    result = octopus("publish", topic, "--file", str(file), "--key-field", "d", "--json")
    assert result.json["count"] == 5001
    events = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--json").lines
    assert {event["key"] for event in events} == {"d0", "d1", "d2", "7"}
    assert sorted(event["value"]["n"] for event in events) == list(range(5001))
    for key in ("d0", "d1", "d2"):
        numbers = [event["value"]["n"] for event in events if event["key"] == key]
        assert numbers == sorted(numbers)


def test_a_line_that_is_not_json_is_named_and_what_stands_before_it_is_published(
    octopus: Octopus, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"n": 1}\n\n{"n": 2}\n{nope\n{"n": 3}\n')
    result = octopus("publish", topic, "--file", str(file), "--partition", "0")
    assert result.code == 1
    assert f"Line 4 of {file} is not JSON" in result.err
    assert read_all(octopus, topic) == ['{"n": 1}', '{"n": 2}']


def test_raw_lines_need_not_be_json(octopus: Octopus, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "raw"
    file.write_bytes(b"{nope\n\xff\n")
    assert octopus("publish", topic, "--file", str(file), "--raw", "--partition", "0").code == 0
    lines = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--json").lines
    assert [(line["encoding"], line["value"]) for line in lines] == [("text", "{nope"), ("base64", "/w==")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (('{"a": 1',), "begins like JSON but is none"),
        (("{}", "--file", "x"), "Both values and --file are given"),
        (("--file", "missing.jsonl"), "There is no file 'missing.jsonl'."),
        (("--file", "."), "'.' is a directory; to publish what happens in it: octopus watch"),
        (("{}", "--header", "novalue"), "--header 'novalue' is not NAME=VALUE."),
        (("{}", "--count", "0"), "--count 0 publishes nothing"),
        (("{}", "--key-field", "id"), "{} has no field 'id' to take the key from."),
        (("{}", "--raw", "--key-field", "id"), "--key-field needs JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_published_is_refused(
    octopus: Octopus, topic: str, arguments: tuple[str, ...], sentence: str
) -> None:
    result = octopus("publish", topic, *arguments)
    assert result.code == 2
    assert sentence in result.err


@pytest.mark.process
def test_lines_that_trickle_in_are_published_as_they_come(start: Start, octopus: Octopus, topic: str) -> None:
    octopus("topics", "create", topic, "--partitions", "1")
    reader = start("consume", topic, "--from", "earliest", "--raw", "--count", "2")
    writer = start("publish", topic, stdin=subprocess.PIPE)
    assert writer.process.stdin is not None
    writer.process.stdin.write(b'{"n": 1}\n{"n"')
    writer.process.stdin.flush()
    reader.wait_for('{"n": 1}')
    assert writer.process.poll() is None
    writer.process.stdin.write(b": 2}")
    writer.process.stdin.close()
    assert writer.end().code == 0
    assert reader.end().out == '{"n": 1}\n{"n": 2}\n'


def test_a_filter_leaves_out_what_does_not_match_and_what_is_no_json(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, '{"n": 1}', '{"n": 7}', "text", "--partition", "0")
    assert read_all(octopus, topic, "--filter", '{"n": [{"numeric": [">", 5]}]}') == ['{"n": 7}']


def test_a_filter_that_is_no_pattern_is_exit_code_2(octopus: Octopus, topic: str) -> None:
    result = octopus("consume", topic, "--filter", '{"n": 5}')
    assert result.code == 2


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("0", "latest", "01234"),
        ("3", "latest", "34"),
        ("-2", "latest", "34"),
        ("1", "3", "12"),
        ("-1h", "now", "01234"),
        ("earliest", "-1h", ""),
        ("999", "latest", ""),
        ("2000-01-01", "2", "01"),
    ],
)
def test_a_range_is_read_and_then_it_ends(octopus: Octopus, topic: str, start: str, end: str, expected: str) -> None:
    octopus("publish", topic, *"01234", "--partition", "0")
    result = octopus("consume", topic, "--from", start, "--to", end, "--raw", "--partition", "0")
    assert result.code == 0
    assert result.out.split() == [*expected]


def test_reading_leaves_no_group_behind(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, "{}")
    read_all(octopus, topic)
    assert not [group for group in octopus("groups", "--json").json if group["name"].startswith("octopus.consume")]


def test_reading_as_a_group_goes_on_where_it_was(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, "1", "2", "3", "--partition", "0")
    group = f"group-{topic}"
    first = octopus("consume", topic, "--group", group, "--to", "2", "--raw", "--partition", "0")
    second = octopus("consume", topic, "--group", group, "--to", "latest", "--raw", "--partition", "0")
    assert (first.out.split(), second.out.split()) == (["1", "2"], ["3"])


def test_a_group_commits_exactly_what_was_shown(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, *"01234", "--partition", "0")
    arguments = ("consume", topic, "--group", f"group-{topic}", "--raw", "--count", "2")
    assert [octopus(*arguments).out.split() for _ in range(2)] == [["0", "1"], ["2", "3"]]


def test_a_topic_that_is_not_there_is_named_with_one_that_is(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, "{}")
    result = octopus("consume", topic[:-1])
    assert result.code == 3
    assert f"There is no topic {topic[:-1]!r}" in result.err
    assert f"Did you mean {topic}?" in result.err


@pytest.mark.process
def test_a_tail_shows_new_events_and_ends_with_ctrl_c(start: Start, octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, '"old"')
    running = start("consume", topic)
    n = 0
    while "new" not in running.out:
        n += 1
        octopus("publish", topic, f'"new {n}"')
        assert time.monotonic() < running.deadline
    result = running.end(signal.SIGINT)
    assert result.code == 130
    assert "old" not in result.out
    assert result.err == ""


@pytest.mark.process
def test_a_reader_that_has_seen_enough_is_no_error(start: Start, octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, *(["x" * 1000] * 500))
    reading, writing = os.pipe()
    running = start("consume", topic, "--from", "earliest", "--raw", stdout=writing)
    os.close(writing)
    assert os.read(reading, 100) == b"x" * 100
    os.close(reading)
    octopus("publish", topic, "one more")
    result = running.end()
    assert (result.code, result.err) == (0, "")
