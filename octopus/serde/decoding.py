"""From the bytes of a record to the value a handler asked for."""

import types
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from octopus.errors import CodecUnavailable, ConfigurationError, DecodeError, TransportError
from octopus.events import Headers
from octopus.serde.annotations import holds_pydantic, is_union, plain, spell, unaliased
from octopus.serde.codecs import JSON, MESSAGE_PACK, Codec
from octopus.serde.reasons import explain

T = TypeVar("T")
Decode = Callable[[bytes], Any]

# Each refuses None with a TypeError, which sends a tombstone down the slow path; none copies a bytes object but for bytearray.
_AS_IT_IS: dict[Any, Decode] = {
    str: partial(str, encoding="utf-8"),
    bytes: bytes,
    bytearray: bytearray,
    memoryview: memoryview,
}

_BUILT_IN: dict[str, Codec] = {
    "application/json": JSON,
    "text/json": JSON,
    "application/msgpack": MESSAGE_PACK,
    "application/x-msgpack": MESSAGE_PACK,
    "application/vnd.msgpack": MESSAGE_PACK,
}


class Decoder(Generic[T]):
    """Decodes the records of one handler; compiled once from its annotation.

    The hot path of a driver needs no call of ours: a record without headers goes to `direct`, and anything that raises
    is decided again by `decode`, which returns the value or raises the right error.

        if not record.headers:
            try:
                return decoder.direct(record.value)
            except Exception:
                pass
        return decoder.decode(record.value, record.headers)

    Args:
        annotation: The handler's: a type, a union, `T | None` where tombstones are welcome, Any.
        codecs: Codecs of the app, chosen by the content-type header, before the built-in ones.
        default: The codec for records without that header.

    Attributes:
        direct: From value bytes to the value, without a look at the content type. It raises the errors of the library below,
            and on None always raises.
        is_raw: The value is handed over as text or bytes: nothing is parsed and headers do not matter.
        fields: Names of the top-level fields as the bytes spell them, when the annotation is one class with fields.

    Raises:
        ConfigurationError: The annotation cannot be decoded.
    """

    __slots__ = (
        "_annotation",
        "_by_content_type",
        "_codecs",
        "_default",
        "_welcomes_none",
        "direct",
        "fields",
        "is_raw",
    )

    def __init__(self, annotation: Any = Any, codecs: Sequence[Codec] = (), default: Codec = JSON) -> None:
        core, self._welcomes_none = _without_none(annotation)
        kind = plain(core)
        self._annotation = annotation = Any if annotation is object else annotation
        self._codecs = _BUILT_IN | {codec.content_type.lower(): codec for codec in (default, *codecs)}
        self._default = default
        self._by_content_type: dict[bytes, tuple[Decode, Codec]] = {}
        self.is_raw = isinstance(kind, type) and kind in _AS_IT_IS
        self.direct: Callable[[bytes], T] = _raw(core, kind) if self.is_raw else _compile(default, annotation)
        self.fields = None if self.is_raw else _fields(core)

    def decode(self, value: bytes | None, headers: Headers = ()) -> T:
        """Return the value of a record.

        Args:
            value: Value bytes; None is a tombstone.
            headers: The record's headers; only `content-type` is looked at, the last one counts.

        Raises:
            DecodeError: The bytes do not fit the annotation, their content type is unknown, or the record is a
                tombstone and the annotation leaves no room for None.
            CodecUnavailable: A codec of the app could not reach a service that it needs, such as a schema registry.
        """
        if value is None:
            return self._tombstone()
        decode, codec = self._choose(headers) if headers and not self.is_raw else (self.direct, self._default)
        try:
            return decode(value)
        except (DecodeError, MemoryError):
            raise
        except TransportError as error:
            if codec in (JSON, MESSAGE_PACK):  # a validator's, then, and no reason to come again
                raise explain(error, value, _form(codec)) from error
            raise _away(codec, error) from error
        except Exception as error:
            raise explain(error, value, _form(codec)) from error

    def _tombstone(self) -> T:
        if not self._welcomes_none:
            name = spell(self._annotation)
            raise DecodeError(f"tombstone: the record has no value and {name} has no None; annotate {name} | None")
        return None  # type: ignore[return-value]

    def _choose(self, headers: Headers) -> tuple[Decode, Codec]:
        content_type = None
        for name, text in headers:
            # The length is a cheap guard: most headers are other ones, and there may be thousands.
            if len(name) == 12 and name.lower() == "content-type":
                content_type = text
        if not content_type:
            return self.direct, self._default
        chosen = self._by_content_type.get(content_type)
        if chosen is None:
            codec = self._codec(content_type)
            chosen = self.direct if codec is self._default else self._compiled(codec), codec
            if len(self._by_content_type) < 16:  # parameters may vary without end
                self._by_content_type[content_type] = chosen
        return chosen

    def _codec(self, content_type: bytes) -> Codec:
        essence = content_type.partition(b";")[0].strip().decode("latin-1").lower()
        codec = self._codecs.get(essence)
        if codec is None and essence.startswith("application/cloudevents"):  # with any form, and in batches
            # A type whose fields have defaults would be read out of the envelope: done, and empty.
            raise DecodeError(
                f"content-type {essence[:100]!r} is a structured CloudEvent, whose envelope is not taken off: publish it in "
                "the binary mode (content-type of the data, ce_ headers), or give the app a codec for it; bytes takes any"
            )
        if codec is None and "+" in essence:  # application/geo+json
            codec = self._codecs.get(f"application/{essence.rpartition('+')[2]}")
        if codec is None:
            known = ", ".join(sorted({codec.content_type for codec in self._codecs.values()}))
            raise DecodeError(f"content-type {essence[:100]!r} is unknown; known are {known}, and bytes takes any")
        return codec

    def _compiled(self, codec: Codec) -> Decode:
        try:
            return codec.decoder(self._annotation)
        except TransportError as error:
            raise _away(codec, error) from error
        except Exception as error:
            name = spell(self._annotation)
            raise DecodeError(f"{codec.content_type} cannot be decoded into {name}: {error}") from error


def announces_type(headers: Headers) -> bool:
    """Tell whether a record names its content type; one that does not is read by the default codec."""
    for name, _ in headers:  # noqa: SIM110 - a generator would cost every record with headers a third of a microsecond
        if len(name) == 12 and name.lower() == "content-type":
            return True
    return False


def _compile(codec: Codec, annotation: Any) -> Decode:
    try:
        return codec.decoder(annotation)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{spell(annotation)} cannot be decoded: {error}") from error


def _raw(annotation: Any, kind: type) -> Decode:
    """Hand the bytes over, and check the constraints of an `Annotated` type if there are any."""
    convert = _AS_IT_IS[kind]
    if annotation is kind or typing.get_origin(annotation) is not typing.Annotated:
        return convert
    return lambda value: msgspec.convert(convert(value), annotation)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Split `T | None` into T and whether None is welcome."""
    annotation = unaliased(annotation)
    if annotation in (Any, object, None, types.NoneType) or isinstance(annotation, TypeVar):
        return annotation, True
    if typing.get_origin(annotation) is typing.Annotated:
        core, welcome = _without_none(typing.get_args(annotation)[0])
        return (core if welcome else annotation), welcome
    if not is_union(annotation):
        return annotation, False
    members = typing.get_args(annotation)
    others = tuple(member for member in members if member is not types.NoneType)
    return unaliased(typing.Union[others]), len(others) < len(members)  # noqa: UP007  # made of a tuple


def _fields(annotation: Any) -> tuple[str, ...] | None:
    if (validated := getattr(annotation, "__pydantic_fields__", None)) is not None:
        aliases = {name: field.validation_alias for name, field in validated.items()}
        return tuple(alias if isinstance(alias, str) else name for name, alias in aliases.items())
    if holds_pydantic(annotation):
        return None
    match msgspec.inspect.type_info(annotation):
        case msgspec.inspect.StructType(array_like=True):
            return None
        case msgspec.inspect.StructType() | msgspec.inspect.DataclassType() | msgspec.inspect.TypedDictType() as info:
            return tuple(field.encode_name for field in info.fields)
    return None


def _away(codec: Codec, error: TransportError) -> CodecUnavailable:
    return CodecUnavailable(f"{codec.content_type} cannot be decoded for now: {error}")


def _form(codec: Codec) -> str:
    return {"application/json": "JSON", "application/msgpack": "MessagePack"}.get(
        codec.content_type, codec.content_type
    )
