"""What matching an event against a pattern costs: one JSON line per case.

    python benchmarks/patterns.py

Fields: `ns` per match (best of several runs), `loops` the same as multiples of one turn of an empty `for` loop,
and, where the event is bytes, `decodes` as multiples of decoding it whole with msgspec. The ratios
travel between machines, the nanoseconds do not.
"""

import json
from collections.abc import Callable
from timeit import repeat
from typing import Any

import msgspec

from octopus.patterns import Pattern

EVENT: dict[str, Any] = {
    "event": "created",
    "path": "/data/beamline/2025/scan_0001/frame_000123.h5",
    "size": 123456789,
    "host": "edge-07.beamline.example.org",
    "user": "operator",
    "checksum": "sha256:" + "ab" * 32,
    "time": "2025-01-01T12:00:00.123456Z",
    "sequence": 123456,
    "metadata": {"sample": "NaCl-7", "energy": 12.4, "temperature": 301.8, "exposure": 0.05, "tags": ["raw", "burst"]},
    "source": {"kind": "inotify", "version": "1.2.3"},
}
DATA = json.dumps(EVENT).encode()

THREE = {"event": ["created"], "size": [{"numeric": [">", 1_000_000]}], "path": [{"prefix": "/data/"}]}
PATTERNS: dict[str, dict[str, Any]] = {
    "one field": {"event": ["created"]},
    "three fields": THREE,
    "three fields, first refused": {**THREE, "event": ["deleted"]},
    "absent field": {"kind": ["x"]},
    "nested string": {"metadata": {"sample": [{"prefix": "NaCl"}]}},
    "nested float": {"metadata": {"temperature": [{"numeric": [">", 300]}]}},
    "list of tags": {"metadata": {"tags": ["burst"]}},
    "wildcard": {"path": [{"wildcard": "/data/*/frame_*.h5"}]},
    "ignored case": {"host": [{"suffix": {"equals-ignore-case": ".EXAMPLE.ORG"}}]},
    "two alternatives": {"$or": [{"event": ["deleted"]}, {"size": [{"numeric": [">", 1]}]}]},
}
FRAMES = {"frames": [{"ok": index % 3 == 0, "counts": index} for index in range(10)]}
GENERAL = {"frames": {"ok": [True], "counts": [9]}}

TURNS = 10_000
RUNS = 15


def main() -> None:
    loop = nanoseconds(lambda: None)
    turn = min(repeat("for _ in turns: pass", globals={"turns": range(TURNS)}, number=1, repeat=RUNS)) / TURNS * 1e9
    decode = msgspec.json.Decoder().decode
    whole = nanoseconds(lambda: decode(DATA)) - loop
    report("decode with msgspec", "bytes", whole, turn, whole)
    for name, source in PATTERNS.items():
        matches = Pattern.compile(source).matches
        report(name, "decoded", nanoseconds(lambda matches=matches: matches(EVENT)) - loop, turn)
        report(name, "bytes", nanoseconds(lambda matches=matches: matches(DATA)) - loop, turn, whole)
    matches = Pattern.compile(GENERAL).matches
    report("ten objects in an array", "decoded, general algorithm", nanoseconds(lambda: matches(FRAMES)) - loop, turn)


def nanoseconds(call: Callable[[], object]) -> float:
    return min(repeat(call, number=TURNS, repeat=RUNS)) / TURNS * 1e9


def report(case: str, event: str, ns: float, turn: float, whole: float | None = None) -> None:
    line: dict[str, object] = {"case": case, "event": event, "ns": round(ns), "loops": round(ns / turn, 1)}
    if whole is not None:
        line |= {"bytes": len(DATA), "decodes": round(ns / whole, 2)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
