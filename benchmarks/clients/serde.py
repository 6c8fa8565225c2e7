"""What decoding and encoding cost by annotation, next to the standard library's json.

A `narrow` type declares three of the record's fields, the others all.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic

from benchmarks import models, structs
from benchmarks.clients.timing import nanoseconds
from benchmarks.records import HEADERS, values
from benchmarks.task import Task
from octopus.serde import MESSAGE_PACK, Decoder, encode

MESSAGE_PACK_HEADERS = [("content-type", b"application/msgpack")]

CALLS = 3000


class NarrowStruct(msgspec.Struct):
    """Three fields."""

    kind: str
    quality: str
    path: str


class NarrowModel(pydantic.BaseModel):
    """Three fields."""

    kind: str
    quality: str
    path: str


@dataclasses.dataclass
class Data:
    """A dataclass."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
    user: dict[str, Any] | None = None
    parts: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@attrs.define
class Attrs:
    """An attrs class."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
    user: dict[str, Any] | None = None
    parts: list[dict[str, Any]] = attrs.Factory(list)


class Typed(TypedDict, total=False):
    """A TypedDict."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
    user: dict[str, Any] | None
    parts: list[dict[str, Any]]


ANNOTATIONS: dict[str, Any] = {
    "Any": Any,
    "dict": dict,
    "TypedDict": Typed,
    "dataclass": Data,
    "attrs": Attrs,
    "Struct": structs.FileEvent,
    "Struct, narrow": NarrowStruct,
    "pydantic": models.FileEvent,
    "pydantic, narrow": NarrowModel,
    "str": str,
    "bytes": bytes,
}


def run(task: Task) -> dict[str, float]:
    """Decode or encode one record, again and again."""
    record = values(task.options["size"], 1, task.seed)[0]
    prepare = {"decode": decoding, "encode": encoding}[task.options["direction"]]
    return {"nanoseconds": nanoseconds(prepare(task.options["name"], record), CALLS)}


def decoding(name: str, record: bytes) -> Callable[[], Any]:
    """Return what decodes the record once."""
    match name:
        case "json.loads":
            return lambda: json.loads(record)
        case "Struct, with headers":
            decode = Decoder[Any](structs.FileEvent).decode
            return lambda: decode(record, HEADERS)
        case "Struct, MessagePack":
            decode, packed = Decoder[Any](structs.FileEvent).decode, encode(json.loads(record), MESSAGE_PACK)
            return lambda: decode(packed, MESSAGE_PACK_HEADERS)
        case _:
            direct = Decoder[Any](ANNOTATIONS[name]).direct
            return lambda: direct(record)


def encoding(name: str, record: bytes) -> Callable[[], Any]:
    """Return what encodes the record's value once."""
    fields = json.loads(record)
    match name:
        case "json.dumps":
            return lambda: json.dumps(fields).encode()
        case "str":
            text = record.decode()
            return lambda: encode(text)
        case "Struct, MessagePack":
            struct = msgspec.convert(fields, structs.FileEvent)
            return lambda: encode(struct, MESSAGE_PACK)
        case "pydantic":
            model = models.FileEvent(**fields)
            return lambda: encode(model)
        case _:
            value = fields if name == "dict" else msgspec.convert(fields, ANNOTATIONS[name])
            return lambda: encode(value)
