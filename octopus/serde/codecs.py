"""The two codecs that are always there, JSON and MessagePack, each for msgspec's types and for pydantic's.

pydantic is never imported unless an annotation already is, or holds, one of its classes.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from octopus.errors import ConfigurationError
from octopus.serde.annotations import holds_pydantic, spell
from octopus.serde.checking import check_annotation, check_names, is_text, strangers


class Codec(Protocol):
    """Turns bytes into values and back.

    Attributes:
        content_type: The MIME type that announces it in the `content-type` header.
    """

    content_type: str

    def decoder(self, annotation: Any) -> Callable[[bytes], Any]:
        """Return a function from bytes to a value of the annotated type.

        Its errors become `DecodeError`, except `TransportError`: a schema registry that is away is no reason to give up on
        a record.
        """
        ...

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        ...


def check_codec(codec: object) -> None:
    """Refuse what is no codec.

    Raises:
        ConfigurationError: It lacks something of `Codec`.
    """
    lacks = [name for name in ("decoder", "encode") if not callable(getattr(codec, name, None))]
    if not isinstance(getattr(codec, "content_type", None), str) or lacks:
        raise ConfigurationError(
            f"codec {codec!r} is none: give octopus.JSON, octopus.MESSAGE_PACK, or an object with content_type, decoder "
            "and encode, as octopus.Codec has them."
        )


class JsonCodec:
    """JSON: the default.

    Attributes:
        content_type: `application/json`; also the type of a record without a content-type header.
    """

    content_type = "application/json"

    def __init__(self) -> None:
        self.encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_to_json).encode

    def decoder(self, annotation: Any) -> Callable[[bytes], Any]:
        """Compile an annotation: msgspec's own bound method where that can be, for speed.

        The function raises its library's errors on bad bytes; `Decoder.decode` turns them into `DecodeError`.

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


def pydantic_validator(annotation: Any) -> Any | None:
    """Return pydantic's compiled validator when the annotation is, or holds, one of its classes; else None."""
    try:
        if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
            validator = annotation.__pydantic_validator__
            validator.validate_json  # noqa: B018  # a class with forward references completes itself, or fails, here
            return annotation.__pydantic_validator__
        if holds_pydantic(annotation):
            from pydantic import TypeAdapter  # it is loaded already: the annotation came from it

            check_names(annotation)
            return TypeAdapter(annotation).validator
    except ConfigurationError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]  # the lines behind it are about pydantic
        raise ConfigurationError(f"{spell(annotation)} cannot be decoded: {reason}") from error
    return None


def _hook(annotation: Any) -> Callable[[type, Any], Any] | None:
    """Return the hook that reads the texts in an annotation; None without them, as msgspec would ask about `object`, too."""
    return _from_text if any(map(is_text, strangers(annotation))) else None


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
    if is_text(type(value)):
        return str(value)
    return msgspec.Raw(_serializer(value).to_json(value, by_alias=_by_alias(value)))


def _to_python(value: Any) -> Any:
    if is_text(type(value)):
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
