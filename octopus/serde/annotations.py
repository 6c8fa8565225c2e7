"""Annotations as people write them: the meaning of aliases, their parts, their spelling."""

import types
import typing
from collections.abc import Iterator
from typing import Any


def is_alias(annotation: Any) -> bool:
    """Whether it is a name made with `type X = …`; before Python 3.12 `typing_extensions` has them."""
    return type(annotation).__name__ == "TypeAliasType"


def unaliased(annotation: Any) -> Any:
    """Return the annotation behind names that `type X = …` makes."""
    while is_alias(annotation):
        annotation = annotation.__value__
    return annotation


def plain(annotation: Any) -> Any:
    """Look through aliases, `Annotated` and `NewType`."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif is_alias(annotation):
            annotation = annotation.__value__
        else:
            return annotation


def is_union(annotation: Any) -> bool:
    """Whether it is `X | Y`, however that is written."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def inside(annotation: Any) -> Iterator[Any]:
    """Yield an annotation, its aliases' meanings, and all of their type arguments."""
    aliases, waiting = [], [annotation]
    while waiting:
        each = waiting.pop()
        yield each
        waiting.extend(arguments(each))
        alias = typing.get_origin(each) or each
        if is_alias(alias) and alias not in aliases:  # which may refer to itself
            aliases.append(alias)
            waiting.append(alias.__value__)


def arguments(annotation: Any) -> tuple[Any, ...]:
    """Return the type arguments of an annotation, without values of a `Literal` and notes of `Annotated`."""
    origin, given = typing.get_origin(annotation), typing.get_args(annotation)
    return () if origin is typing.Literal else given[:1] if origin is typing.Annotated else given


def is_name(annotation: Any) -> bool:
    """Whether it is still a text: resolving annotations stops where a name refers to itself."""
    return isinstance(annotation, str | typing.ForwardRef)


def holds_pydantic(annotation: Any) -> bool:
    """Whether an annotation is, or has among its type arguments, a class of pydantic's."""
    return any(hasattr(each, "__pydantic_validator__") for each in inside(annotation))


def spell(annotation: Any) -> str:
    """Write an annotation as its author did."""
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation).replace("pathlib._local.", "pathlib.")  # Python 3.13 names the file that they stand in
