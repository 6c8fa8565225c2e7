"""Refuses annotations that cannot be decoded, at decoration: with the part, the reason, and the replacement."""

import datetime
import decimal
import enum
import typing
import uuid
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

from octopus.errors import ConfigurationError
from octopus.serde.annotations import arguments, inside, is_alias, is_name, is_union, plain, spell

_TEXTS = (
    str,
    bytes,
    bytearray,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    uuid.UUID,
    decimal.Decimal,
)

_CLASSES = "a msgspec.Struct, a dataclass, a TypedDict, an attrs class or a pydantic model"
_ALIKE = (
    "they are all written as text, and nothing tells them apart. Write one of them, or str and convert it in the handler, or "
    "make it a field of a pydantic model, which goes by what the text looks like."
)
_ALONE = (
    "{} is read from text, and can stand beside None alone. Write str in its place and convert it in the handler, or make it a "
    "field of a pydantic model."
)
_ENDLESS = (
    "it refers to itself, which only classes can. Write Any, which takes whatever is there, or a class with a field that refers "
    "to the class."
)
_BOTTOMLESS = (
    "it is nested too deeply, perhaps because a generic class in it has a field of the same class with other type arguments, and "
    "so on without end. Write Any for that field."
)

_DEEPEST = 32
"""How often a generic class that stands inside itself, each time with other type arguments, is taken for endless. msgspec would go
on until the interpreter's limit, which takes half a minute on Python 3.13."""


class _Refused(NamedTuple):
    """A part of an annotation, in which field of which class it stands, and why it cannot be decoded."""

    part: Any
    place: str
    reason: str


def check_annotation(annotation: Any) -> None:
    """Check that msgspec can decode into an annotation, down to the last field.

    Raises:
        ConfigurationError: It cannot; the sentence names the part, its place, and the replacement.
    """
    reason = _reason(annotation)
    if reason is None:
        return
    whole = _Refused(annotation, "", reason)
    refused = _innermost(whole, []) or whole
    where = f" in {refused.place}" if refused.place else f" inside {spell(annotation)}"
    if refused.part is annotation or (is_name(refused.part) and not refused.place):
        where = ""
    raise ConfigurationError(f"{spell(refused.part)}{where} cannot be decoded: {refused.reason}")


def check_names(annotation: Any) -> None:
    """Check that no name is left in an annotation for pydantic, which would look for it here, among our own.

    Raises:
        ConfigurationError: There is one.
    """
    for each in inside(annotation):
        if is_name(each):
            raise ConfigurationError(f"{spell(each)} cannot be decoded: {_ENDLESS}")


def is_text(kind: Any) -> bool:
    """Whether a class that msgspec does not know is made of one text, and written as it: paths, and all of `ipaddress`."""
    return isinstance(kind, type) and (issubclass(kind, PurePath) or kind.__module__ == "ipaddress")


def strangers(annotation: Any) -> Iterator[type]:
    """Yield the classes in an annotation that msgspec does not know, except `object`. It raises msgspec's errors."""
    seen: set[int] = set()
    waiting: list[Any] = [msgspec.inspect.type_info(annotation)]
    while waiting:  # a description may be cyclic
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, msgspec.inspect.CustomType) and node.cls is not object:
                yield node.cls
            waiting.extend(getattr(node, name) for name in node.__struct_fields__)


def _reason(annotation: Any) -> str | None:
    """Say why an annotation cannot be decoded, or something inside it; None if it can."""
    try:
        if is_name(annotation) or _is_endless(annotation):
            return _ENDLESS
        if _endless_class(annotation):
            return _BOTTOMLESS
        # A class msgspec does not know compiles, and then refuses every value: it has to be looked for.
        unknown = [kind for kind in strangers(annotation) if not is_text(kind)]
    except NameError as error:
        return f"{error}; define it before its use."
    except RecursionError:
        return _BOTTOMLESS
    except Exception as error:  # noqa: BLE001 - any error here is about the annotation
        return _about_union(annotation) or _about_alias(annotation) or str(error)
    if not unknown:
        return None
    if hasattr(unknown[0], "__pydantic_validator__"):
        return "not a data type. A pydantic model can only be inside other pydantic models, lists, dicts and unions."
    return f"not a data type. Use {_CLASSES}."


def _innermost(refused: _Refused, seen: list[Any]) -> _Refused | None:
    """Go down to the part that is refused by itself; None when all that is refused has been looked at already."""
    seen.append(refused.part)
    if refused.reason is _BOTTOMLESS:
        return _endless_alias(refused) or _endless_class(refused.part) or refused  # further down there is always more
    if is_alias(_kind(refused.part)) and _is_endless(refused.part):
        return refused  # as well
    parts = [
        _Refused(part, place or refused.place, reason)
        for place, part in _parts(refused.part)
        if (reason := _reason(part)) is not None
    ]
    for each in parts:
        if not any(each.part is known for known in seen) and (found := _innermost(each, seen)) is not None:
            return found
    return None if parts else refused


def _endless_alias(bottomless: _Refused) -> _Refused | None:
    """Find the alias that makes an annotation bottomless. From Python 3.12 on msgspec follows aliases, also endless ones."""
    known: list[Any] = []
    waiting = [bottomless]
    while waiting:
        part, place, _ = each = waiting.pop()
        kind = _kind(part)
        if is_alias(kind) and _leads_back(kind):
            return each._replace(reason=_ENDLESS)
        # What a class or an alias is made of is looked at once, so this ends: all else was written out.
        is_known = any(kind is other for other in known)
        known.append(kind)
        inner = (("", argument) for argument in arguments(part)) if is_known else _parts(part)
        waiting.extend(_Refused(found, at or place, "") for at, found in inner)
    return None


def _parts(annotation: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of an annotation; of a class its fields, each with its place."""
    if is_alias(annotation):
        yield "", annotation.__value__
    elif isinstance(annotation, typing.NewType):
        yield "", annotation.__supertype__
    yield from (("", each) for each in arguments(annotation) if each not in (..., ()))
    kind = _kind(annotation)
    yield from ((f"{kind.__qualname__}.{field}", hint) for field, hint in _hints(kind).items())


def _hints(kind: Any) -> dict[str, Any]:
    """Return the annotations of a class's fields; none where they cannot be told, or are pydantic's affair."""
    if not isinstance(kind, type) or not hasattr(kind, "__annotations__") or hasattr(kind, "__pydantic_validator__"):
        return {}
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - then nothing more can be told than that of the class
        return {}


def _about_union(annotation: Any) -> str | None:
    """Describe the types that contradict each other in a union; None where only msgspec can."""
    union = plain(annotation)
    if not is_union(union):
        return None
    members = [plain(each) for each in typing.get_args(union)]
    texts = [each for each in members if _is_written_as_text(each)]
    if len(texts) > 1:
        return _ALIKE
    alone = next((each for each in texts if is_text(each)), None)
    return None if alone is None else _ALONE.format(spell(alone))


def _about_alias(annotation: Any) -> str | None:
    if not is_alias(annotation):
        return None
    stands_for = spell(annotation.__value__)
    return f"msgspec knows such names from Python 3.12 on. Write {annotation.__name__} = {stands_for}, or {stands_for}."


def _is_written_as_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Literal:
        return any(isinstance(each, str) for each in typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return any(isinstance(each.value, str) for each in annotation)
    return annotation in _TEXTS or is_text(annotation)


def _is_endless(annotation: Any) -> bool:
    """Whether following the aliases in an annotation leads back to one of them."""
    return any(is_alias(kind) and _leads_back(kind) for kind in map(_kind, inside(annotation)))


def _endless_class(annotation: Any) -> _Refused | None:
    """Find a generic class in an annotation that holds itself with ever other type arguments."""
    seen: list[Any] = []
    waiting: list[tuple[Any, str, tuple[Any, ...], _Refused]] = []
    waiting.append((annotation, "", (), _Refused(annotation, "", _BOTTOMLESS)))
    while waiting:  # the last first: so what has no end is followed down, and not across
        part, place, above, outermost = waiting.pop()
        if above.count(_kind(part)) > _DEEPEST:
            return outermost
        if part in seen:
            continue
        seen.append(part)
        waiting.extend((each, place, above, outermost) for each in arguments(part))
        if not above:
            outermost = _Refused(part, place, _BOTTOMLESS)
        kind = _kind(part)
        parameters = getattr(kind, "__parameters__", None)
        meaning = dict(zip(parameters, typing.get_args(part), strict=False)) if isinstance(parameters, tuple) else {}
        for field, hint in _hints(kind).items():
            at = f"{kind.__qualname__}.{field}"
            if given := tuple(meaning.get(each, Any) for each in getattr(hint, "__parameters__", ())):
                waiting.append((hint[given], at, (*above, kind), outermost))
            else:
                waiting.append((meaning.get(hint, hint), at, above, outermost))
    return None


def _leads_back(alias: Any) -> bool:
    return any(_kind(each) is alias for each in inside(alias.__value__))


def _kind(annotation: Any) -> Any:
    """Return the generic class or alias behind one with type arguments, else the annotation."""
    return typing.get_origin(annotation) or annotation
