"""From a value to the bytes of a record."""

from enum import Enum
from functools import lru_cache
from typing import Any

from octopus.serde.codecs import JSON
from octopus.types import Codec


def encode(value: Any, codec: Codec = JSON) -> bytes | None:
    """Return what is stored for a value.

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
        raise TypeError(f"A {kind.__qualname__} nested too deeply cannot be published.") from error
    except Exception as error:
        raise TypeError(f"A {kind.__qualname__} cannot be published as {codec.content_type}: {error}") from error


@lru_cache(maxsize=256)
def _form(kind: type) -> type | None:
    """Tell what values of a type are written as: text, bytes, or what the codec makes of them."""
    if issubclass(kind, Enum):
        return None
    return str if issubclass(kind, str) else bytes if issubclass(kind, bytes | bytearray | memoryview) else None
