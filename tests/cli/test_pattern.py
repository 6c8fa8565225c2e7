"""`pattern`: checked, tried, explained."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Octopus, Start

PATTERN = '{"event": ["created"], "size": [{"numeric": [">", 10]}]}'
MATCH, MISS = '{"event": "created", "size": 11}', '{"event": "created", "size": 1}'


def test_a_right_pattern_is_checked(octopus: Octopus) -> None:
    result = octopus("pattern", "check", PATTERN, brokers=None)
    assert result.code == 0
    assert "The pattern is right." in result.out
    report = octopus("pattern", "check", PATTERN, "--json", brokers=None).json
    assert report["portable"] is True
    assert report["fields"] == ["event", "size"]
    assert '"value"' in report["pushdown"]


def test_a_pattern_that_not_every_service_understands_is_remarked_on(octopus: Octopus) -> None:
    result = octopus("pattern", "check", '{"a": [{"wildcard": "x*y"}]}', "--json", brokers=None)
    assert (result.code, result.json["portable"]) == (0, False)
    assert result.json["remarks"]


def test_a_wrong_pattern_is_exit_code_2_and_says_where(octopus: Octopus) -> None:
    result = octopus("pattern", "check", '{"a": {"b": [{"prefx": "x"}]}}', brokers=None)
    assert result.code == 2
    assert "error: a.b: 'prefx' is not an operator" in result.err


def test_events_are_tried(octopus: Octopus, tmp_path: Path) -> None:
    (tmp_path / "pattern.json").write_text(PATTERN)
    assert octopus("pattern", "test", "@pattern.json", MATCH, brokers=None).code == 0
    result = octopus("pattern", "test", PATTERN, MATCH, MISS, "--json", brokers=None)
    assert result.code == 1
    assert result.json == [{"event": MATCH, "matches": True}, {"event": MISS, "matches": False}]


def test_a_miss_is_explained(octopus: Octopus) -> None:
    result = octopus("pattern", "explain", PATTERN, MISS, brokers=None)
    assert result.code == 1
    assert "size: 1 refused" in result.out
    assert octopus("pattern", "explain", PATTERN, MATCH, "--json", brokers=None).json[0]["matches"] is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((PATTERN, "nope"), "Event 1: "),
        ((PATTERN, "@missing.json"), f"'missing.json' cannot be read: {os.strerror(errno.ENOENT)}."),
        (("@missing.json", "{}"), "'missing.json' cannot be read"),
    ],
    ids=["no JSON", "no event file", "no pattern file"],
)
def test_mistakes_are_exit_code_2(octopus: Octopus, arguments: tuple[str, ...], sentence: str) -> None:
    result = octopus("pattern", "test", *arguments, brokers=None)
    assert result.code == 2
    assert sentence in result.err


@pytest.mark.process
def test_events_come_from_standard_input_too(start: Start) -> None:
    running = start("pattern", "test", PATTERN, stdin=subprocess.PIPE, brokers=None)
    running.process.communicate(f"{MATCH}\n\n{MISS}\n".encode())
    result = running.end()
    assert (result.code, result.out) == (1, f"match     {MATCH}\nno match  {MISS}\n")
