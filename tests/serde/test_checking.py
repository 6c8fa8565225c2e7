"""Annotations that cannot be decoded are refused at decoration, with the part, where it stands and what to write instead."""

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import pathlib
import re
import sys
import typing
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, Union

import attrs
import msgspec
import pydantic
import pytest
from typing_extensions import TypeAliasType

from octopus import Octopus
from octopus.errors import ConfigurationError
from octopus.serde import JSON, MESSAGE_PACK, Decoder

ALIKE = (
    "cannot be decoded: they are all written as text, and nothing tells them apart. Write one of them, or str and convert it in "
    "the handler, or make it a field of a pydantic model, which goes by what the text looks like."
)
ENDLESS = (
    "cannot be decoded: it refers to itself, which only classes can. Write Any, which takes whatever is there, or a class with a "
    "field that refers to the class."
)

When = datetime.datetime | uuid.UUID
Endless = Union[dict[str, "Endless"], list["Endless"], str, int, float, bool, None]  # noqa: UP007  # as people write it
if sys.version_info >= (3, 12):
    exec("type EndlessAlias = dict[str, EndlessAlias] | list[EndlessAlias] | int")
else:
    EndlessAlias = TypeAliasType("EndlessAlias", dict[str, "EndlessAlias"] | list["EndlessAlias"] | int)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.Enum):
    LOW = 1


TEXTS = {
    "a time or an id": When,
    "a number or a date": decimal.Decimal | datetime.date,
    "a text or an id": str | uuid.UUID,
    "a text or a path": str | pathlib.Path,
    "a text or bytes": str | bytes,
    "a text or a duration": datetime.timedelta | str,
    "a date or a time": datetime.date | datetime.datetime,
    "a path or an address": pathlib.Path | ipaddress.IPv4Address,
    "two kinds of address": ipaddress.IPv4Address | ipaddress.IPv6Address,
    "two kinds of address or nothing": ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    "an address or a network": ipaddress.IPv4Interface | ipaddress.IPv4Network,
    "a colour or a date": Colour | datetime.date,
    "a word or a date": Literal["now"] | datetime.date,
    "with notes": Annotated[str, msgspec.Meta(max_length=3)] | uuid.UUID,
    "a new name for a text": NewType("RunId", str) | uuid.UUID,
}


@pytest.mark.parametrize("codec", [JSON, MESSAGE_PACK], ids=["JSON", "MessagePack"])
@pytest.mark.parametrize("annotation", TEXTS.values(), ids=TEXTS)
def test_a_union_of_what_is_written_as_text_is_refused(annotation: Any, codec: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Decoder[Any](annotation, default=codec)
    written = str(annotation).replace("pathlib._local.", "pathlib.")
    assert str(refused.value) == f"{written} {ALIKE}"


APART = {
    "a number or a text": (int | str, b'"7"', "7"),
    "a path or nothing": (pathlib.Path | None, b'"/data"', pathlib.Path("/data")),
    "an address or nothing": (ipaddress.IPv6Address | None, b'"::1"', ipaddress.IPv6Address("::1")),
    "an exact number or a count": (decimal.Decimal | int, b"0.10", decimal.Decimal("0.10")),
    "an exact number or nothing": (decimal.Decimal | None, b"0.10", decimal.Decimal("0.10")),
    "a time or seconds": (datetime.datetime | float, b"1.5", 1.5),
    "an id or a level": (uuid.UUID | Level, b"1", Level.LOW),
    "paths or one number": (list[pathlib.Path] | int, b'["/a"]', [pathlib.Path("/a")]),
    "by path": (dict[pathlib.Path, int], b'{"/a": 1}', {pathlib.Path("/a"): 1}),
}


@pytest.mark.parametrize(("annotation", "value", "expected"), APART.values(), ids=APART)
def test_a_union_whose_members_differ_in_json_is_decoded_exactly(annotation: Any, value: bytes, expected: Any) -> None:
    decoded = Decoder[Any](annotation).decode(value)
    assert (decoded, type(decoded)) == (expected, type(expected))


@dataclasses.dataclass
class InDataclass:
    name: str
    when: When


@attrs.define
class InAttrs:
    when: list[When]


class InTypedDict(TypedDict):
    when: When | None


class InNamedTuple(NamedTuple):
    when: When


class InStruct(msgspec.Struct):
    when: dict[str, When]


class Outer(msgspec.Struct):
    inner: list[InDataclass]


@dataclasses.dataclass
class Endlessly:
    body: Endless


class EndlesslyByAlias(TypedDict):
    body: EndlessAlias


class EndlesslyInside(msgspec.Struct):
    inner: list[EndlesslyByAlias]


class PathOrCount(msgspec.Struct):
    place: pathlib.Path | int


class Stranger:
    pass


class StrangeTree(msgspec.Struct):
    children: "list[StrangeTree]"
    stranger: Stranger


class Model(pydantic.BaseModel):
    size: int


WHEN = "datetime.datetime | uuid.UUID"
ALONE = "Path is read from text, and can stand beside None alone. Write str in its place and convert it in the handler"
PARTS = {
    "dataclass": (InDataclass, f"{WHEN} in InDataclass.when {ALIKE}"),
    "attrs": (InAttrs, f"{WHEN} in InAttrs.when {ALIKE}"),
    "TypedDict": (InTypedDict, f"{WHEN} | None in InTypedDict.when {ALIKE}"),
    "NamedTuple": (InNamedTuple, f"{WHEN} in InNamedTuple.when {ALIKE}"),
    "Struct": (InStruct, f"{WHEN} in InStruct.when {ALIKE}"),
    "a class inside a class": (Outer, f"{WHEN} in InDataclass.when {ALIKE}"),
    "a list": (list[When], f"{WHEN} inside list[{WHEN}] {ALIKE}"),
    "keys": (dict[When, int], f"{WHEN} inside dict[{WHEN}, int] {ALIKE}"),
    "a path or a number": (PathOrCount, f"pathlib.Path | int in PathOrCount.place cannot be decoded: {ALONE}"),
    "recursive": (Endless, f"Endless {ENDLESS}"),
    "recursive by alias": (EndlessAlias, f"EndlessAlias {ENDLESS}"),
    "recursive in a list by alias": (list[EndlessAlias], "EndlessAlias "),
    "recursive in a field": (Endlessly, f"Endless in Endlessly.body {ENDLESS}"),
    "recursive in a field by alias": (EndlesslyByAlias, f"EndlessAlias in EndlesslyByAlias.body {ENDLESS}"),
    "recursive in a class inside a class": (EndlesslyInside, f"EndlessAlias in EndlesslyByAlias.body {ENDLESS}"),
    "a stranger beside others": (Stranger | int, "Stranger inside"),
    "a stranger in a recursive class": (StrangeTree, "Stranger in StrangeTree.stranger cannot be decoded: not a data"),
    "recursive beside pydantic": (list[Model] | list["Model"], f"Model {ENDLESS}"),
}


@pytest.mark.parametrize("batch", [None, 10], ids=["one", "batch"])
@pytest.mark.parametrize(("annotation", "sentence"), PARTS.values(), ids=PARTS)
def test_the_sentence_names_parameter_part_and_place(annotation: Any, sentence: str, batch: int | None) -> None:
    async def store(reading): ...  # type: ignore[no-untyped-def]

    if sentence.startswith("Model"):  # `get_type_hints` finds it: only who asks without it meets the name
        with pytest.raises(ConfigurationError) as refused:
            Decoder[Any](annotation)
        assert str(refused.value).startswith(sentence)
        return
    store.__annotations__["reading"] = list[annotation] if batch else annotation
    with pytest.raises(ConfigurationError) as refused:
        Octopus("app").on("t", batch=batch)(store)
    assert str(refused.value).startswith(f"Handler store, parameter reading: {sentence}")


class Exact(pydantic.BaseModel):
    when: When | None = None
    name: str | uuid.UUID = ""
    place: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    path: pathlib.Path | None = None
    any: pydantic.JsonValue = None


ID = uuid.uuid4()


@pytest.mark.parametrize("codec", [JSON, MESSAGE_PACK], ids=["JSON", "MessagePack"])
def test_pydantic_tells_texts_apart_by_what_they_look_like(codec: Any) -> None:
    given = {
        "when": str(ID),
        "name": "x",
        "place": "::1",
        "path": "/a",
        "any": {"a": [1, "b", None]},
    }
    decoded = Decoder(Exact, default=codec).decode(codec.encode(given))
    assert decoded == Exact(
        when=ID, name="x", place=ipaddress.IPv6Address("::1"), path=pathlib.Path("/a"), any={"a": [1, "b", None]}
    )
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert Decoder(Exact, default=codec).decode(codec.encode({"when": at.isoformat()})).when == at


class EndlessModel(pydantic.BaseModel):
    body: EndlessAlias


def test_a_pydantic_model_may_hold_an_alias_that_refers_to_itself() -> None:
    assert Decoder(EndlessModel).decode(b'{"body": {"a": [1]}}') == EndlessModel(body={"a": [1]})


@pytest.mark.parametrize(
    ("alias", "value", "expected"),
    [
        (TypeAliasType("Text", str), b"as it is", "as it is"),
        (TypeAliasType("Perhaps", str | None), None, None),  # type: ignore[arg-type]
        (TypeAliasType("Models", list[Model]), b'[{"size": 1}]', [Model(size=1)]),
        (TypeAliasType("Text", TypeAliasType("Inner", bytes)), b"\xff", b"\xff"),
        (typing.Optional[TypeAliasType("Text", str)], b"as it is", "as it is"),  # noqa: UP045  # no `|` before 3.12
    ],
    ids=["text", "optional", "pydantic", "alias of an alias", "alias or nothing"],
)
def test_an_alias_is_decoded_as_what_it_stands_for(alias: Any, value: bytes | None, expected: Any) -> None:
    assert Decoder[Any](alias).decode(value) == expected


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is syntax of Python 3.12")
def test_what_stands_behind_type_statements_is_found() -> None:
    namespace: dict[str, Any] = {"list": list, "Octopus": Octopus, "pathlib": pathlib}
    exec(
        "from octopus import Event\n"
        "type Readings = list[Event[int]]\n"
        "type Place = pathlib.Path\n"
        "type Missing = list[Nowhere]\n"
        "async def store(readings: Readings) -> None: ...\n"
        "async def look(place: Place) -> None: ...\n"
        "async def miss(missing: Missing) -> None: ...\n",
        namespace,
    )
    app = Octopus("app")
    app.on("t", batch=10)(namespace["store"])
    app.on("t")(namespace["look"])
    assert [route.signature.parameter[:2] for route in app.routes] == [("event", True), ("value", False)]
    with pytest.raises(
        ConfigurationError, match=r"Handler miss, parameter missing: Missing .*'Nowhere' is not defined"
    ):
        app.on("t")(namespace["miss"])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is syntax of Python 3.12")
def test_an_endless_alias_with_type_arguments_is_named_where_it_stands() -> None:
    namespace: dict[str, Any] = {"TypedDict": TypedDict}
    exec(
        "type Chain[T] = tuple[T, Chain[T]] | None\nclass Links(TypedDict):\n    chains: list[Chain[int]]\n", namespace
    )
    with pytest.raises(ConfigurationError) as refused:
        Decoder[Any](namespace["Links"])
    assert str(refused.value) == f"Chain[int] in Links.chains {ENDLESS}"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="msgspec knows them from Python 3.12 on")
def test_an_alias_that_msgspec_does_not_know_yet_is_refused_with_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"Numbers cannot be decoded: .* Write Numbers = list\[int\], or list"):
        Decoder[Any](TypeAliasType("Numbers", list[int]))


Item = typing.TypeVar("Item")


class Widening(msgspec.Struct, typing.Generic[Item]):
    inner: "Widening[list[Item]] | None" = None


class Forking(msgspec.Struct, typing.Generic[Item]):
    left: "Forking[list[Item]] | None" = None
    right: "Forking[dict[str, Item]] | None" = None


class Holder(msgspec.Struct):
    name: str
    held: Widening[str] | None = None


@pytest.mark.parametrize(
    ("annotation", "refused"),
    [
        (Widening[int], "Widening[int]"),
        (list[Forking[int]], "Forking[int]"),
        (Holder, "Widening[str]"),
    ],
    ids=["widens", "forks", "in a field"],
)
def test_a_generic_class_that_holds_itself_with_ever_other_arguments_is_refused_as_such(
    annotation: Any, refused: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        Decoder[Any](annotation)
    assert re.search(
        rf"{re.escape(refused)}.* cannot be decoded: it is nested too deeply.* Write Any", str(error.value)
    )


def test_many_generic_classes_that_hold_each_other_can_be_decoded() -> None:
    inner: Any = list[Item]  # type: ignore[valid-type]
    for number in range(40):
        inner = dataclasses.make_dataclass(f"Box{number}", [("held", inner)], bases=(typing.Generic[Item],))[Item]  # type: ignore[index]
    assert Decoder[Any](inner[int]).fields == ("held",)


class Pair(msgspec.Struct, typing.Generic[Item]):
    first: Item
    others: "list[Pair[Item]]"


def test_a_generic_class_that_holds_itself_with_the_same_arguments_can_be_decoded() -> None:
    tree = Decoder[Any](Pair[int]).decode(b'{"first": 1, "others": [{"first": 2, "others": []}]}', ())
    assert tree == Pair(1, [Pair(2, [])])
