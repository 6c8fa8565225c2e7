"""Reading no more of an event's bytes than a pattern looks at.

A decoder for a type that names only some fields skips the others without building them, at a fraction of
the cost. Which fields is the pattern's to say: a path `a.b` may stand in an event as b in a or as the one
name `a.b`, so both are read. Values that could matter are read with any type; where only
the content of an object matters, scalars are dropped and lists are read whole.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypedDict

import msgspec
from msgspec import UNSET

from octopus.errors import DecodeError
from octopus.patterns.numbers import RawNumber, read_number

Bytes = bytes | bytearray | memoryview


class Reader(NamedTuple):
    """The two ways to read an event's bytes.

    Attributes:
        decode: The decoder itself: right for most events; for all others it raises an error of any type.
        read: Right for every event: its fields, or None for JSON that is not an object. It raises DecodeError.
    """

    decode: Callable[[Bytes], dict[str, Any]]
    read: Callable[[Bytes], dict[str, Any] | None]


#: Objects deeper than this are read whole: each level costs a type, and few patterns go deeper.
_MAX_LEVELS = 4


def build_reader(paths: frozenset[str], exact: bool) -> Reader:
    """Build the functions that read an event's bytes.

    Args:
        paths: The dotted paths to read, among others perhaps.
        exact: Whether numbers that no double represents must keep their text.

    Returns:
        Functions from JSON text to the object, without the fields that lead to no path.
    """
    decode = msgspec.json.Decoder(_object_type(paths, _MAX_LEVELS), float_hook=read_number if exact else None).decode

    def read(data: Bytes) -> dict[str, Any] | None:
        try:
            event: dict[str, Any] = decode(data)
        except msgspec.ValidationError:
            return _read_whole(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecodeError(f"the event is not JSON: {error}") from error
        except RecursionError as error:
            raise DecodeError("the event nests too deeply to be read") from error
        return event

    return Reader(decode, read)


def build_test(reader: Reader, predicate: Callable[[dict[str, Any]], bool]) -> Callable[[bytes], bool]:
    """Join reader and predicate into one closure over an event's bytes; it raises DecodeError."""
    decode, read = reader

    def test(data: bytes) -> bool:
        try:
            event: dict[str, Any] | None = decode(data)
        except Exception:  # noqa: BLE001 - read again, where it becomes a DecodeError, or turns out to be no object
            event = read(data)
        return event is not None and predicate(event)

    return test


def build_peek(field: str) -> Callable[[bytes], Any]:
    """Build a reader of one top-level field that skips the others, without a dictionary.

    Returns:
        From JSON text to an object whose `_` is the field's value, UNSET when there is none; it raises an error of any type
        for JSON that is no object.
    """
    peek = msgspec.defstruct("Peek", [("_", Any, UNSET)], rename={"_": field}, gc=False)
    return msgspec.json.Decoder(peek).decode


def _object_type(paths: Iterable[str], levels: int) -> Any:
    inside: dict[str, set[str]] = {}  # by the first step of a path, the second ones
    whole = set()
    for path in paths:
        step, dot, rest = path.partition(".")
        if dot:
            inside.setdefault(step, set()).add(rest)
        else:
            whole.add(path)
        # A dotted name is rare: it is read whole, with any value.
        whole.update(
            path[:index] for index in range(len(step) + 1, len(path) + 1) if path[index : index + 1] in (".", "")
        )
    fields = {step: _inside_type(rests, levels - 1) for step, rests in inside.items()} | dict.fromkeys(whole, Any)
    return TypedDict("Fields", fields, total=False)  # type: ignore[operator]


def _inside_type(paths: set[str], levels: int) -> Any:
    if not levels:
        return Any
    return _object_type(paths, levels) | list[Any] | str | int | float | bool | None


def _read_whole(data: Bytes) -> dict[str, Any] | None:
    """Read valid JSON that the decoder refuses: no object, or numbers out of range where none was expected."""
    try:
        # The decoder stops at the first thing it does not want; whether the rest is JSON is still to be seen.
        raw = bytes(msgspec.json.decode(data, type=msgspec.Raw))
        if not raw.startswith(b"{"):
            return None
        event: dict[str, Any] = json.loads(raw.decode(), parse_int=_read_integer, parse_float=read_number)
    except (msgspec.DecodeError, ValueError) as error:
        raise DecodeError(f"the event is not JSON: {error}") from error
    except RecursionError as error:
        raise DecodeError("the event nests too deeply to be read") from error
    return event


def _read_integer(text: str) -> int | RawNumber:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return RawNumber(text)
