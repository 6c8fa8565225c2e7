"""Types that values are decoded as."""

import dataclasses
import enum
import typing
from typing import Any, NamedTuple, NewType, TypedDict

import attrs
import msgspec
import pydantic

from octopus.errors import ConnectionFailed


class File(msgspec.Struct):
    path: str
    size: int


class Renamed(msgspec.Struct, rename="camel"):
    file_size: int


class Checked(msgspec.Struct):
    size: int

    def __post_init__(self) -> None:
        match self.size:
            case 0:
                raise ValueError("size must be\npositive")
            case 1:
                raise ZeroDivisionError("one")
            case 2:
                raise Unprintable
            case 3:
                raise MemoryError
            case 4:
                raise KeyboardInterrupt
            case 5:
                raise ConnectionFailed("validators have no business with brokers")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Folder(msgspec.Struct, forbid_unknown_fields=True):
    files: list[File]
    parent: "Folder | None" = None


@dataclasses.dataclass
class Sample:
    name: str
    mass: float


@attrs.define
class Motor:
    axis: str
    position: float


class Reading(TypedDict):
    sensor: str
    value: float


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    DARK = "dark"


class Model(pydantic.BaseModel):
    size: int
    ratio: float = 0
    note: Any = None


class Aliased(pydantic.BaseModel):
    file_size: int = pydantic.Field(alias="fileSize")
    parts: list[Model] = []


class Strange(pydantic.BaseModel):
    size: int

    @pydantic.field_validator("size")
    @classmethod
    def check(cls, size: int) -> int:
        if size == 0:
            raise ValueError("size must be positive")
        return 1 // (size - 1)


class Circle(pydantic.BaseModel):
    radius: float


class Square(pydantic.BaseModel):
    side: float


class Tagged(msgspec.Struct, tag="tagged"):
    one: int


class OtherTag(msgspec.Struct, tag="other"):
    two: int


class Holder(msgspec.Struct):
    model: Model


class Text(msgspec.Struct):
    body: str


class Stranger:
    pass


RunId = NewType("RunId", str)
T = typing.TypeVar("T")
