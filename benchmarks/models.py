"""The records' types, for pydantic."""

import pydantic


class User(pydantic.BaseModel):
    """Who made a file."""

    id: int
    name: str
    group: str


class Part(pydantic.BaseModel):
    """A piece of a file."""

    name: str
    bytes: int


class FileEvent(pydantic.BaseModel):
    """A file was made. Small records have neither user nor parts."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
    user: User | None = None
    parts: list[Part] = []
