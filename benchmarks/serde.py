"""What decoding and encoding cost by annotation, next to `json.loads` and `json.dumps`.

    python -m benchmarks.serde

Prints one JSON line per case and record size: microseconds per record (median of interleaved repeats) and the ratio to
the standard library, above 1 when faster. A `narrow` case declares three of the record's fields, the others all.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import timeit
from collections.abc import Callable
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic

from octopus.serde import MESSAGE_PACK, Decoder, encode

MESSAGE_PACK_HEADERS = [("content-type", b"application/msgpack")]
JSON_HEADERS = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("source", b"beamline")]


class NarrowStruct(msgspec.Struct):
    """Three fields."""

    event: str
    path: str
    size: int


class FullStruct(NarrowStruct):
    """And the rest."""

    details: dict[str, Any] = {}


@dataclasses.dataclass
class Data:
    """A dataclass."""

    event: str
    path: str
    size: int
    details: dict[str, Any]


@attrs.define
class Attrs:
    """An attrs class."""

    event: str
    path: str
    size: int
    details: dict[str, Any]


class Typed(TypedDict):
    """A TypedDict."""

    event: str
    path: str
    size: int
    details: dict[str, Any]


class NarrowModel(pydantic.BaseModel):
    """A pydantic model of three fields."""

    event: str
    path: str
    size: int


class Model(NarrowModel):
    """And the rest."""

    details: dict[str, Any]


def main() -> None:
    """Measure every case at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 463, 2500], help="bytes per record")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5000, help="per repeat")
    arguments = parser.parse_args()
    machine = {"python": platform.python_version(), "msgspec": msgspec.__version__, "machine": platform.machine()}
    for size in arguments.sizes:
        stored = record(size)
        for direction, cases in (("decode", decoding(stored)), ("encode", encoding(stored))):
            times = measure(cases, arguments.repeats, arguments.calls)
            baseline = next(iter(times.values()))
            for name, microseconds in times.items():
                line = {"case": name, "direction": direction, "bytes": len(stored), "us": round(microseconds, 3)}
                print(json.dumps(line | {"times_faster": round(baseline / microseconds, 2)} | machine))


def record(size: int) -> bytes:
    """Return a JSON record of that size: a file event with instrument details."""
    value: dict[str, Any] = {
        "event": "created",
        "path": "/data/run-7/image-000042.h5",
        "size": 8_388_608,
        "details": {},
    }
    number = 0
    while (room := size - len(msgspec.json.encode(value))) >= 45:
        value["details"][f"motor-{number:02}"] = {"position": number + 0.125, "unit": "mm"}
        number += 1
    value["path"] += "x" * room
    return msgspec.json.encode(value)


def decoding(stored: bytes) -> dict[str, Callable[[], Any]]:
    """Return what decodes a record once, the baseline first."""
    cases: dict[str, Callable[[], Any]] = {"json.loads": lambda: json.loads(stored)}
    annotations = {
        "Any": Any,
        "dict": dict,
        "TypedDict": Typed,
        "dataclass": Data,
        "attrs": Attrs,
        "Struct": FullStruct,
    }
    annotations |= {"Struct, narrow": NarrowStruct, "pydantic": Model, "pydantic, narrow": NarrowModel}
    annotations |= {"str": str, "bytes": bytes}
    for name, annotation in annotations.items():
        cases[name] = call(Decoder[Any](annotation).direct, stored)
    struct, narrow = Decoder[FullStruct](FullStruct), Decoder[NarrowStruct](NarrowStruct)
    packed = encode(msgspec.json.decode(stored), MESSAGE_PACK)
    cases["Struct, narrow, decode()"] = call(narrow.decode, stored)
    cases["Struct, narrow, decode() with headers"] = call(narrow.decode, stored, JSON_HEADERS)
    cases["Struct, MessagePack"] = call(struct.decode, packed, MESSAGE_PACK_HEADERS)
    return cases


def encoding(stored: bytes) -> dict[str, Callable[[], Any]]:
    """Return what encodes a value once, the baseline first."""
    value = json.loads(stored)
    cases: dict[str, Callable[[], Any]] = {"json.dumps": lambda: json.dumps(value).encode()}
    values = {"dict": value, "dataclass": Data(**value), "attrs": Attrs(**value), "Struct": FullStruct(**value)}
    values |= {"pydantic": Model(**value), "str": stored.decode(), "bytes": stored}
    for name, each in values.items():
        cases[name] = call(encode, each)
    cases["Struct, MessagePack"] = call(encode, values["Struct"], MESSAGE_PACK)
    return cases


def call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Bind arguments as cheaply as the baseline does."""
    return lambda: function(*arguments)


def measure(cases: dict[str, Callable[[], Any]], repeats: int, calls: int) -> dict[str, float]:
    """Return microseconds per call, less what calling nothing costs."""
    runs: dict[str, list[float]] = {name: [] for name in cases}
    empty: list[float] = []
    for _ in range(repeats):
        empty.append(timeit.timeit(lambda: None, number=calls))
        for name, case in cases.items():
            runs[name].append(timeit.timeit(case, number=calls))
    floor = statistics.median(empty)
    return {name: max((statistics.median(times) - floor) / calls * 1e6, 0.001) for name, times in runs.items()}


if __name__ == "__main__":
    main()
