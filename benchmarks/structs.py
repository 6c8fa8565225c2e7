"""The records' types, for msgspec."""

import msgspec


class User(msgspec.Struct):
    """Who made a file."""

    id: int
    name: str
    group: str


class Part(msgspec.Struct):
    """A piece of a file."""

    name: str
    bytes: int


class FileEvent(msgspec.Struct):
    """A file was made. Small records have neither user nor parts."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
    user: User | None = None
    parts: list[Part] = []


class ShortEvent(msgspec.Struct):
    """A file was made, in a record that has room for neither user nor parts."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str
