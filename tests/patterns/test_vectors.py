"""The saved answers of the engine behind EventBridge, and ours.

Each line of the file is a pattern, an event and what the reference engine said.
"""

import json
import re
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

Vector = dict[str, Any]


def by_kind(vectors: list[Vector]) -> list[Any]:
    """Return the parameters of a test: the vectors of each kind, which is the first word of their names."""
    kinds: dict[str, list[Vector]] = {}
    for vector in vectors:
        kinds.setdefault(re.split("[ -]", vector["name"])[0], []).append(vector)
    return [pytest.param(kinds[kind], id=kind, marks=[QUIRK] if kind == "quirk" else []) for kind in sorted(kinds)]


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


def expected(vector: Vector) -> bool:
    # The engine fails on an event that is no object; a record like that is just not a match here.
    return vector["expect"] is True


@pytest.mark.parametrize("vectors", by_kind(VALID))
def test_bytes_are_ruled_as_the_engine_rules(vectors: list[Vector]) -> None:
    def as_bytes(vector: Vector) -> bool:
        return Pattern.compile(vector["pattern"]).matches(vector["event"].encode())

    assert [vector for vector in vectors if as_bytes(vector) is not expected(vector)] == []


@pytest.mark.parametrize("vectors", by_kind(DECODABLE))
def test_decoded_events_are_ruled_as_the_engine_rules(vectors: list[Vector]) -> None:
    def decoded(vector: Vector) -> bool:
        return Pattern.compile(vector["pattern"]).matches(json.loads(vector["event"]))

    assert [vector for vector in vectors if decoded(vector) is not expected(vector)] == []


@pytest.mark.parametrize("vectors", by_kind(VALID))
def test_an_index_rules_as_its_patterns_do(vectors: list[Vector]) -> None:
    other = Pattern.compile({"no such field": ["no such text"]})

    def among(vector: Vector) -> tuple[int, ...]:
        pattern = Pattern.compile(vector["pattern"])
        among_bytes, _ = index_patterns([pattern, other, pattern, None])
        return tuple(among_bytes(vector["event"].encode()))

    assert [vector for vector in vectors if among(vector) != ((0, 2, 3) if expected(vector) else (3,))] == []


@pytest.mark.parametrize("vectors", by_kind(INVALID))
def test_what_the_engine_refuses_is_refused(vectors: list[Vector]) -> None:
    def is_taken(vector: Vector) -> bool:
        try:
            Pattern.compile(vector["pattern"])
        except PatternError:
            return False
        return True

    assert [vector for vector in vectors if is_taken(vector)] == []


def test_most_vectors_can_be_asked_both_ways() -> None:
    assert len(DECODABLE) > 0.8 * len(VALID)
