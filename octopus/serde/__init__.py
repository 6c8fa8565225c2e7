"""Bytes ↔ values: the handler's annotation chooses how a record is decoded.

    annotation                                            value bytes are
    str                                                   UTF-8 text, as it is
    bytes, bytearray, memoryview                          as they are
    Struct, dataclass, TypedDict, attrs, NamedTuple,      JSON, or as the content-type header says
    Enum, Literal, unions, dict, list, int, datetime, …
    pathlib.Path, everything of ipaddress                 their text
    pydantic models                                       the same, validated by pydantic
    Any, object, none                                     the same, without a schema
    … | None                                              the same; a tombstone (no value) arrives as None

Questions that JSON leaves open are decided here: a repeated key counts once, the last one; NaN and Infinity are refused; integers
of any size that Python reads are kept; lone surrogates are refused; nesting beyond the interpreter's recursion limit
(200 levels for pydantic) is refused. A Decimal keeps every digit, but for numbers inside pydantic models, which pydantic
reads as floats first: there, publish decimals as text. Every fault of the bytes is a `DecodeError`; no other error escapes.

Publishing mirrors it: text and bytes go as they are, None is a tombstone, everything else is written by the app's codec.
NaN and Infinity are written as null, because JSON has no word for them.
"""

from octopus.serde.codecs import JSON, MESSAGE_PACK, Codec, JsonCodec, MessagePackCodec, check_codec
from octopus.serde.decoding import Decoder, announces_type
from octopus.serde.encoding import encode

__all__ = [
    "JSON",
    "MESSAGE_PACK",
    "Codec",
    "Decoder",
    "JsonCodec",
    "MessagePackCodec",
    "announces_type",
    "check_codec",
    "encode",
]
