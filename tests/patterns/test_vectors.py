"""The saved answers of the engine behind EventBridge, and ours.

Each line of the file is a pattern, an event and what the reference engine said.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from octopus.errors import PatternError
from octopus.patterns import Pattern, index_patterns

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "event_patterns.jsonl").read_text(encoding="utf-8").splitlines()
]
QUIRK = pytest.mark.xfail(strict=False, reason="a short CIDR mask of the engine matches numbers and the other family")


def params(vectors: list[dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(vector, id=vector["name"], marks=[QUIRK] if vector["name"].startswith("quirk") else [])
        for vector in vectors
    ]


def survives_decoding(event: str) -> bool:
    def keep(text: str) -> float:
        if Decimal(text) != Decimal(repr(float(text))):
            raise ValueError(text)
        return float(text)

    try:
        json.loads(event, parse_float=keep)
    except ValueError:
        return False
    return True


VALID = [vector for vector in VECTORS if vector["expect"] != "INVALID"]
INVALID = [vector for vector in VECTORS if vector["expect"] == "INVALID"]
DECODABLE = [vector for vector in VALID if survives_decoding(vector["event"])]


def expected(vector: dict[str, Any]) -> bool:
    # The engine fails on an event that is no object; a record like that is just not a match here.
    return vector["expect"] is True


@pytest.mark.parametrize("vector", params(VALID))
def test_bytes_are_ruled_as_the_engine_rules(vector: dict[str, Any]) -> None:
    assert Pattern.compile(vector["pattern"]).matches(vector["event"].encode()) is expected(vector)


@pytest.mark.parametrize("vector", params(DECODABLE))
def test_decoded_events_are_ruled_as_the_engine_rules(vector: dict[str, Any]) -> None:
    assert Pattern.compile(vector["pattern"]).matches(json.loads(vector["event"])) is expected(vector)


@pytest.mark.parametrize("vector", params(VALID))
def test_an_index_rules_as_its_patterns_do(vector: dict[str, Any]) -> None:
    pattern, other = Pattern.compile(vector["pattern"]), Pattern.compile({"no such field": ["no such text"]})
    among_bytes, _ = index_patterns([pattern, other, pattern, None])
    assert among_bytes(vector["event"].encode()) == ((0, 2, 3) if expected(vector) else (3,))


@pytest.mark.parametrize("vector", params(INVALID))
def test_what_the_engine_refuses_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(PatternError):
        Pattern.compile(vector["pattern"])


def test_most_vectors_can_be_asked_both_ways() -> None:
    assert len(DECODABLE) > 0.8 * len(VALID)
