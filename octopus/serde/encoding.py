"""From a value to the bytes of a record."""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

from octopus.serde.codecs import JSON, Codec

DEEPEST = 50
"""Levels that the search for a value that cannot be written goes down."""


def encode(value: Any, codec: Codec = JSON) -> bytes | None:
    """Return the stored bytes of a value.

    Args:
        value: None is a tombstone; bytes and text go as they are (text as UTF-8); anything else is the codec's.
        codec: Writes structs, dataclasses, attrs classes, pydantic models, mappings, lists, numbers, dates, …

    Raises:
        TypeError: The value cannot be written; the sentence names its type and why.
    """
    kind = type(value)
    if value is None or kind is bytes:
        return value  # type: ignore[no-any-return]
    form = _form(kind)  # type: ignore[arg-type]  # mypy doubts that a class can be hashed
    if form is str:
        try:
            return value.encode()  # type: ignore[no-any-return]
        except UnicodeEncodeError as error:
            raise TypeError(f"Text with a lone surrogate, at character {error.start}, cannot be published.") from error
    if form is bytes:
        return bytes(value)
    try:
        return codec.encode(value)
    except MemoryError:
        raise
    except RecursionError as error:
        raise TypeError(f"A value of type {kind.__qualname__} nested too deeply cannot be published.") from error
    except Exception as error:
        where, reason = _culprit(value, codec, error)
        raise TypeError(
            f"A value of type {kind.__qualname__} cannot be published as {codec.content_type}: {where}{reason}"
        ) from error


def _culprit(value: Any, codec: Codec, error: Exception) -> tuple[str, Exception]:
    """Look for the innermost part that cannot be written; return where it is (`$.a[0]: `) and why."""
    path = "$"
    for _ in range(DEEPEST):
        for step, part in _parts(value):
            try:
                codec.encode(part)
            except Exception as deeper:  # noqa: BLE001 - this is the value searched for
                path, value, error = path + step, part, deeper
                break
        else:
            break
    return (f"{path}: " if path != "$" else ""), error


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value, each with its spelling in a path."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield (f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"), part
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    else:
        kind = type(value)
        names: Iterable[str] = (
            getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None) or ()
        )
        yield from ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))


@lru_cache(maxsize=256)
def _form(kind: type) -> type | None:
    """Tell the form in which values of a type are written: text, bytes, or the codec's."""
    if issubclass(kind, Enum):
        return None
    return str if issubclass(kind, str) else bytes if issubclass(kind, bytes | bytearray | memoryview) else None
