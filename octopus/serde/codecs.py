"""The two codecs that are always there, JSON and MessagePack, each for msgspec's types and for pydantic's.

pydantic is never imported unless an annotation already is, or holds, one of its classes.
"""

import typing
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

import msgspec

from octopus.errors import ConfigurationError


class JsonCodec:
    """JSON: the default.

    Attributes:
        content_type: `application/json`; also what a record without a content-type header is taken for.
    """

    content_type = "application/json"

    def __init__(self) -> None:
        self.encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_to_json).encode

    def decoder(self, annotation: Any) -> Callable[[bytes], Any]:
        """Compile an annotation: msgspec's own bound method where that can be, for speed.

        What the function raises on bad bytes is the library's business; `Decoder.decode` says it as `DecodeError`.

        Raises:
            ConfigurationError: The annotation cannot be decoded.
        """
        validator = pydantic_validator(annotation)
        if validator is not None:
            return _without_nan(validator.validate_json)
        check_annotation(annotation)
        return msgspec.json.Decoder(annotation, dec_hook=_hook(annotation)).decode


class MessagePackCodec:
    """MessagePack, for records whose content-type header says so.

    Attributes:
        content_type: `application/msgpack`.
    """

    content_type = "application/msgpack"

    def __init__(self) -> None:
        self.encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=_to_python).encode

    def decoder(self, annotation: Any) -> Callable[[bytes], Any]:
        """Compile an annotation, as `JsonCodec.decoder` does."""
        validator = pydantic_validator(annotation)
        if validator is not None:
            untyped, validate = msgspec.msgpack.Decoder().decode, validator.validate_python
            return lambda value: validate(untyped(value))
        check_annotation(annotation)
        return msgspec.msgpack.Decoder(annotation, dec_hook=_hook(annotation)).decode


def check_annotation(annotation: Any) -> None:
    """Check that msgspec can decode into an annotation, down to the last field.

    Raises:
        ConfigurationError: It cannot; the sentence names the type.
    """
    try:
        # A class msgspec does not know compiles, and then refuses every value: it has to be looked for.
        strangers = [node.cls for node in _nodes(msgspec.inspect.type_info(annotation))]
    except NameError as error:
        raise ConfigurationError(
            f"{spell(annotation)} cannot be decoded: {error}; define it before its use."
        ) from error
    except Exception as error:
        raise ConfigurationError(f"{spell(annotation)} cannot be decoded: {error}") from error
    for stranger in strangers:
        if _is_text(stranger):
            continue
        hint = "Use a msgspec.Struct, a dataclass, a TypedDict, an attrs class or a pydantic model."
        if hasattr(stranger, "__pydantic_validator__"):
            hint = "A pydantic model can only be inside other pydantic models, lists, dicts and unions."
        where = "" if stranger is annotation else f" inside {spell(annotation)}"
        raise ConfigurationError(f"{spell(stranger)}{where} cannot be decoded: not a data type. {hint}")


def pydantic_validator(annotation: Any) -> Any | None:
    """Return pydantic's compiled validator when the annotation is, or holds, one of its classes; else None."""
    try:
        if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
            validator = annotation.__pydantic_validator__
            validator.validate_json  # noqa: B018  # a class with forward references completes itself, or fails, here
            return annotation.__pydantic_validator__
        if holds_pydantic(annotation):
            from pydantic import TypeAdapter  # it is loaded already: the annotation came from it

            return TypeAdapter(annotation).validator
    except Exception as error:
        raise ConfigurationError(f"{spell(annotation)} cannot be decoded: {error}") from error
    return None


def holds_pydantic(annotation: Any) -> bool:
    """Whether an annotation is, or has among its type arguments, a class of pydantic's."""
    return hasattr(annotation, "__pydantic_validator__") or any(map(holds_pydantic, typing.get_args(annotation)))


def spell(annotation: Any) -> str:
    """Write an annotation as its author did."""
    return (
        annotation.__qualname__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
    )


def _nodes(info: Any) -> Iterator[msgspec.inspect.CustomType]:
    """Walk msgspec's description of a type, which may be cyclic, and yield what it does not know itself."""
    seen: set[int] = set()
    waiting = [info]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, msgspec.inspect.CustomType) and node.cls is not object:
                yield node
            waiting.extend(getattr(node, name) for name in node.__struct_fields__)


def _is_text(kind: Any) -> bool:
    """Whether a class that msgspec does not know is made of one text, and written as it: paths, and all of `ipaddress`."""
    return isinstance(kind, type) and (issubclass(kind, PurePath) or kind.__module__ == "ipaddress")


def _hook(annotation: Any) -> Callable[[type, Any], Any] | None:
    """Return what reads the texts in an annotation; None without them, because every `object` in it would be asked about, too."""
    has_texts = any(_is_text(node.cls) for node in _nodes(msgspec.inspect.type_info(annotation)))
    return _from_text if has_texts else None


def _from_text(kind: type, value: Any) -> Any:
    if kind is object:
        return value
    if not isinstance(value, str):
        raise TypeError(f"expected str, got {type(value).__name__}")
    return kind(value)


def _without_nan(validate: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Refuse the literals NaN and Infinity, which pydantic would read although JSON has none."""

    def decode(value: bytes) -> Any:
        # One byte is looked for by the processor, several by Python: that would cost a third of the validation.
        if (b"N" in value and b"NaN" in value) or (b"I" in value and b"Infinity" in value):
            msgspec.json.decode(value, type=msgspec.Raw)  # checks the syntax only: the words may be inside a text
        return validate(value)

    return decode


def _to_json(value: Any) -> Any:
    if _is_text(type(value)):
        return str(value)
    return msgspec.Raw(_serializer(value).to_json(value, by_alias=_by_alias(value)))


def _to_python(value: Any) -> Any:
    if _is_text(type(value)):
        return str(value)
    return _serializer(value).to_python(value, mode="json", by_alias=_by_alias(value))


def _serializer(value: Any) -> Any:
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is None:
        hint = "; convert it first, for example with .tolist()" if hasattr(value, "tolist") else ""
        raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is not a data type{hint}")
    return serializer


def _by_alias(value: Any) -> bool:
    # A model reads its aliases, so it has to write them to be read again, unless its author says otherwise.
    return bool(getattr(value, "model_config", {}).get("serialize_by_alias", True))


JSON = JsonCodec()
MESSAGE_PACK = MessagePackCodec()
