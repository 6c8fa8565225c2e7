"""The tree of settings, read off their classes: for the loader, the sources and the reference pages."""

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from octopus.config.secret import Secret
from octopus.config.settings import Settings


class Setting(NamedTuple):
    """One setting, for documentation.

    Attributes:
        path: Dotted, as in `consumer.session_timeout`.
        type: Its values, in words.
        default: As it would be written.
        doc: Its purpose.
    """

    path: str
    type: str
    default: Any
    doc: str


class Leaf(NamedTuple):
    """One setting, for the loader.

    Attributes:
        annotation: The whole annotation.
        kind: The bare class; `Literal` for a choice.
        choices: Of a choice.
        unit: `seconds`, `bytes` or nothing.
        is_optional: Whether it may be None.
        default: Its default.
        doc: Its purpose.
    """

    annotation: Any
    kind: Any
    choices: tuple[str, ...]
    unit: str
    is_optional: bool
    default: Any
    doc: str

    def expected(self) -> str:
        """Describe its values."""
        match self.kind, self.unit:
            case _, "seconds":
                words = "seconds as a number, or text such as '250ms', '10s', '5m', '2h', '7d'"
            case _, "bytes":
                words = "bytes as a whole number, or text such as '64 KiB', '1 MB'"
            case _ if self.choices:
                words = f"one of {', '.join(self.choices)}"
            case _:
                words = _WORDS[self.kind]
        for bound, spoken in (("ge", "at least"), ("le", "at most")):
            limits = [getattr(meta, bound) for meta in _metadata(self.annotation) if isinstance(meta, msgspec.Meta)]
            words += "".join(f", {spoken} {limit}" for limit in limits if limit)
        return f"{words}, or none" if self.is_optional else words


_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    tuple: "a list of texts, or one text with commas",
    Secret: "text (kept secret)",
}

Tree = dict[str, "Leaf | Tree"]


def describe() -> list[Setting]:
    """Return every setting in order, for reference pages."""
    return [Setting(path, leaf.expected(), leaf.default, leaf.doc) for path, leaf in leaves(tree())]


def leaves(inside: Tree, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield every setting with its dotted path."""
    for name, node in inside.items():
        if isinstance(node, dict):
            yield from leaves(node, f"{path}{name}.")
        else:
            yield f"{path}{name}", node


@cache
def tree() -> Tree:
    """Read the settings' classes."""
    return _section(Settings)


def sections() -> dict[str, type[msgspec.Struct]]:
    """Return the class of each section."""
    return {
        field.name: field.type for field in msgspec.structs.fields(Settings) if isinstance(tree()[field.name], dict)
    }


def _section(kind: type[msgspec.Struct]) -> Tree:
    return {field.name: _node(field.type, field.default) for field in msgspec.structs.fields(kind)}


def _node(annotation: Any, default: Any) -> "Leaf | Tree":
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _section(annotation)
    metadata = list(_metadata(annotation))
    doc = next(item for item in metadata if isinstance(item, str))
    units = [item.extra["unit"] for item in metadata if isinstance(item, msgspec.Meta) and item.extra]
    bare, is_optional = _bare(annotation)
    origin = typing.get_origin(bare)
    choices = typing.get_args(bare) if origin is typing.Literal else ()
    return Leaf(annotation, origin or bare, choices, "".join(units), is_optional, default, doc)


def _metadata(annotation: Any) -> Iterator[Any]:
    """Yield the annotations anywhere in a type, innermost last."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from annotation.__metadata__
        yield from _metadata(annotation.__origin__)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _metadata(member)


def _bare(annotation: Any) -> tuple[Any, bool]:
    """Return the type without annotations and None, and whether None was in it."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(annotation.__origin__)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (member,) = (member for member in typing.get_args(annotation) if member is not types.NoneType)
        return _bare(member)[0], True
    return annotation, False
