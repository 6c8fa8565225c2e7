"""Why bytes were refused, in one sentence, whichever library refused them."""

import re
from typing import Any

import msgspec

from octopus.errors import DecodeError

LONGEST_REASON = 500
"""Characters. Reasons travel in dead-letter headers, and libraries quote the offending data at any length."""

# Texts, not compiled patterns: most programs never refuse a record, and `re` caches compiled patterns.
_MALFORMED = r"(?:JSON|MessagePack data) is malformed: (.*) \(byte (\d+)\)"
_LOCATED = r"(.*) - at `(\$.*)`"
_FIELD = r"Object (missing required|contains unknown) field `(.*)`"


def explain(error: Exception, value: bytes, form: str = "JSON") -> DecodeError:
    """Turn a decoder's error into a `DecodeError` that names the field and the reason.

    Args:
        error: Raised by msgspec, by pydantic, by a codec or by a validator of the user's.
        value: The bytes it was raised for.
        form: The expected format of the bytes, as people call it.
    """
    try:
        reason, field = _reason(error, value, form)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # an exception of the user's may fail even to be shown
        reason, field = f"refused with {type(error).__qualname__}", ""
    reason = " ".join(reason.split())
    if len(reason) > LONGEST_REASON:
        reason = reason[: LONGEST_REASON - 1] + "…"
    return DecodeError(reason, field=field[:LONGEST_REASON])


def _reason(error: Exception, value: bytes, form: str) -> tuple[str, str]:
    if isinstance(error, RecursionError):
        return f"invalid {form}: nested too deeply", ""
    if isinstance(error, UnicodeDecodeError) and (bad := _first_bad_byte(value)) is not None:
        return f"invalid UTF-8 at byte {bad} (0x{value[bad]:02x})", ""
    if isinstance(error, msgspec.ValidationError):
        return _validation(error)
    if isinstance(error, msgspec.DecodeError):
        return _syntax(str(error), value, form), ""
    if hasattr(error, "error_count") and hasattr(error, "errors"):
        return _pydantic(error)
    return f"refused with {type(error).__qualname__}: {error}", ""


def _validation(error: msgspec.ValidationError) -> tuple[str, str]:
    """Read msgspec's `Expected `int`, got `str` - at `$.size``."""
    text, field = str(error), ""
    if located := re.fullmatch(_LOCATED, text, re.DOTALL):
        text, field = located.groups()
    if error.__cause__ is None:  # else the words are those of a validator of the user's
        if about := re.fullmatch(_FIELD, text, re.DOTALL):
            field = f"{field or '$'}.{about[2]}"
            text = "required, but missing" if about[1] == "missing required" else "unknown field"
        text = text[:1].lower() + text[1:].replace("`", "")
    return (f"{field}: {text}" if field else text), field


def _pydantic(error: Any) -> tuple[str, str]:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    field = f"${field}" if field else ""
    more = error.error_count() - 1
    text = first["msg"][:1].lower() + first["msg"][1:]
    also = f" (and {more} more)" if more else ""
    return (f"{field}: {text}{also}" if field else f"{text}{also}"), field


def _syntax(text: str, value: bytes, form: str) -> str:
    if not value:
        return f"invalid {form}: the value is empty"
    if value.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) and form == "JSON":
        return "invalid JSON: it starts with a byte order mark; send UTF-8 without one"
    malformed = re.fullmatch(_MALFORMED, text, re.DOTALL)
    # From the bytes, not from the words: releases of msgspec say this differently, and not all of them say where.
    bad = _first_bad_byte(value) if form == "JSON" else None
    if bad is not None and (malformed is None or bad <= int(malformed[2])):
        return f"invalid UTF-8 at byte {bad} (0x{value[bad]:02x})"
    if malformed is not None:
        what, byte = malformed[1], int(malformed[2])
        if what == "trailing characters" and form == "JSON":
            byte -= 1  # msgspec counts the first of them as read
        for word in ("NaN", "Infinity"):
            if value.startswith(word.encode(), byte):
                what = f"{word} is not JSON"
        return f"invalid {form} at byte {byte}: {what}"
    if text == "Input data was truncated":
        surrogate = ", or in a lone surrogate" if b"\\ud" in value.lower() else ""
        return f"invalid {form} at byte {len(value)}: the data ends too early{surrogate}"
    return f"invalid {form}: {text}"


def _first_bad_byte(value: bytes) -> int | None:
    """Find the offset in the whole value: msgspec tells the one inside its text."""
    try:
        str(value, "utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None
