"""The records: file events of a chosen size, drawn with a fixed seed. Standard library only.

A 463-byte record has seven fields, among them a nested user and a list of parts; a smaller one has only what fits. What a
filter can look at is drawn so that a known share matches: see `FILTERS`.
"""

import dataclasses
import json
import random
from collections.abc import Iterator
from typing import Any

SEED = 20260

HEADERS = (
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("source", b"beamline"),
)

FILTERS: dict[int, dict[str, Any]] = {
    0: {"kind": ["deleted"]},
    50: {"shift": ["day"]},
    99: {"quality": ["good"]},
    100: {"kind": ["created"]},
}
"""Percentage of the records that match → event pattern."""

LOTS = 100
"""Different values of the field `lot`, all equally frequent."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """The contents of a topic.

    Attributes:
        value_bytes: Size of each value.
        partitions: Of the topic.
        keys: Different keys; 0 for records without one.
        headers: Whether records carry two headers.
        records: How many.
    """

    value_bytes: int
    partitions: int
    keys: int
    headers: bool
    records: int


def values(size: int, count: int, seed: int = SEED) -> list[bytes]:
    """Return `count` JSON values of `size` bytes each; the same ones for the same seed."""
    draw = random.Random(f"{seed} {size}")
    return [_value(size, number, draw) for number in range(count)]


def contents(workload: Workload, seed: int = SEED) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield key and value of each record of a workload."""
    distinct = values(workload.value_bytes, min(workload.records, 10_000, 1 + 2**25 // workload.value_bytes), seed)
    draw = random.Random(f"{seed} keys")
    for number in range(workload.records):
        key = b"key-%06d" % draw.randrange(workload.keys) if workload.keys else None
        yield key, distinct[number % len(distinct)]


def _value(size: int, number: int, draw: random.Random) -> bytes:
    event: dict[str, Any] = {
        "kind": "created",
        "shift": "day" if draw.random() < 0.50 else "night",
        "quality": "good" if draw.random() < 0.99 else "bad",
        "lot": f"lot-{draw.randrange(LOTS):02}",
        "path": "",
    }
    if size >= 300:
        event["user"] = {"id": draw.randrange(10**6), "name": f"user-{draw.randrange(1000):03}", "group": "imaging"}
        # Most of a large record is text: what a decoder pays is for fields and objects more than for bytes.
        event["parts"] = [
            {"name": f"part-{part:03}", "bytes": draw.randrange(10**6, 10**7)}
            for part in range(2 if size < 1000 else 12)
        ]
    room = size - len(_dump(event))
    if room < 0:
        raise ValueError(f"a record cannot have {size} bytes; {size - room} is the least")
    # The path takes what is left, so that all records of a workload have the same size.
    event["path"] = f"/data/run-{number:09}/".ljust(room, "x")[:room]
    return _dump(event)


def _dump(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()
