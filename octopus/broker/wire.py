"""Primitive types of the Kafka wire protocol: a bounds-checked reader and a writer of parts.

Two encodings are spoken. The classic one: big-endian integers, strings with an i16 length, bytes and arrays with an i32
length, -1 for null. The flexible one (KIP-482), which every API has from some version on: lengths as varints, one more than
they are and 0 for null, and tagged fields after each struct. A reader and a writer know which it is, so that a layout is
written once. Source: https://kafka.apache.org/protocol#protocol_types.
"""

from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct, error
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")
Part = bytes | bytearray | memoryview

_INT8, _INT16, _INT32, _INT64 = Struct(">b"), Struct(">h"), Struct(">i"), Struct(">q")
_FRAME = Struct(">ii")
_NO_TAGS = b"\0"

NO_ID = UUID(int=0)
"""In place of a topic's id: there is none."""


class MalformedRequest(Exception):
    """The bytes are not the request they claim to be; only closing the connection is safe."""


class Reader:
    """Read primitive values from one request, never past its end and never allocating more than it holds."""

    __slots__ = ("_at", "_data", "_is_flexible")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._is_flexible = False

    def become_flexible(self) -> "Reader":
        """Read the rest in the flexible encoding, beginning with the header's tagged fields."""
        self._is_flexible = True
        self.tags()
        return self

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def int8(self) -> int:
        return self._integer(_INT8)

    def int16(self) -> int:
        return self._integer(_INT16)

    def int32(self) -> int:
        return self._integer(_INT32)

    def int64(self) -> int:
        return self._integer(_INT64)

    def boolean(self) -> bool:
        return self._integer(_INT8) != 0

    def string(self) -> str:
        text = self.nullable_string()
        if text is None:
            raise MalformedRequest(f"null string before byte {self._at}")
        return text

    def nullable_string(self) -> str | None:
        length = self._unsigned() - 1 if self._is_flexible else self._integer(_INT16)
        if length == -1:
            return None
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError as problem:
            raise MalformedRequest(f"string before byte {self._at} is not UTF-8") from problem

    def uuid(self) -> UUID:
        return UUID(bytes=bytes(self._take(16)))

    def blob(self) -> bytes:
        return bytes(self.view())

    def view(self) -> memoryview:
        """Read bytes without copying them; null reads as empty."""
        length = self._length()
        return self._take(0 if length == -1 else length)

    def rest(self) -> bytes:
        """Read all that is left."""
        return bytes(self._take(self.remaining))

    def array(self, item: Callable[[], T]) -> list[T]:
        """Read an array; null reads as empty."""
        return self.nullable_array(item) or []

    def nullable_array(self, item: Callable[[], T]) -> list[T] | None:
        count = self._length()
        if count == -1:
            return None
        # Every item takes at least one byte, so a count beyond the remaining bytes is a lie, found before anything is allocated.
        if count < 0 or count > self.remaining:
            raise MalformedRequest(f"array of {count} items in {self.remaining} bytes")
        return [item() for _ in range(count)]

    def structs(self, item: Callable[[], T]) -> list[T]:
        """Read an array of structs; null reads as empty."""
        return self.nullable_array(partial(self._struct, item) if self._is_flexible else item) or []

    def nullable_structs(self, item: Callable[[], T]) -> list[T] | None:
        return self.nullable_array(partial(self._struct, item) if self._is_flexible else item)

    def tags(self) -> None:
        """Pass over tagged fields: a reader ignores the tags it does not know."""
        for _ in range(self._unsigned()):
            self._unsigned()
            self._take(self._unsigned())

    def _struct(self, item: Callable[[], T]) -> T:
        value = item()
        self.tags()
        return value

    def _length(self) -> int:
        return self._unsigned() - 1 if self._is_flexible else self._integer(_INT32)

    def _unsigned(self) -> int:
        number = 0
        for shift in range(0, 35, 7):
            byte = self._integer(_INT8) & 0xFF
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise MalformedRequest(f"a length before byte {self._at} does not end")

    def _integer(self, kind: Struct) -> int:
        try:
            (value,) = kind.unpack_from(self._data, self._at)
        except error as problem:
            raise MalformedRequest(f"request ends inside a value at byte {self._at}") from problem
        self._at += kind.size
        return value  # type: ignore[no-any-return]  # struct says Any; these four kinds give int

    def _take(self, length: int) -> memoryview:
        if length < 0 or length > self.remaining:
            raise MalformedRequest(f"length {length} at byte {self._at} with {self.remaining} left")
        start = self._at
        self._at = start + length
        return memoryview(self._data)[start : self._at]


class Writer:
    """Write primitive values into a list of parts; record bytes are passed on as they are, never joined.

    Every method returns the writer, so that a layout reads as one line.

    Args:
        is_flexible: Whether to write the flexible encoding.
    """

    __slots__ = ("_is_flexible", "_parts", "_tail")

    def __init__(self, is_flexible: bool = False) -> None:
        self._is_flexible = is_flexible
        self._tail = bytearray()
        self._parts: list[Part] = []

    def int8(self, value: int) -> "Writer":
        self._tail += _INT8.pack(value)
        return self

    def int16(self, value: int) -> "Writer":
        self._tail += _INT16.pack(value)
        return self

    def int32(self, value: int) -> "Writer":
        self._tail += _INT32.pack(value)
        return self

    def int64(self, value: int) -> "Writer":
        self._tail += _INT64.pack(value)
        return self

    def boolean(self, value: bool) -> "Writer":
        self._tail += b"\x01" if value else b"\x00"
        return self

    def string(self, value: str | None) -> "Writer":
        """Write a string, None as null; cut at the 32,767 bytes that an i16 can say."""
        if value is None:
            return self._unsigned(0) if self._is_flexible else self.int16(-1)
        data = value.encode()
        if len(data) > 32767:
            data = data[:32767].decode(errors="ignore").encode()
        if self._is_flexible:
            self._unsigned(len(data) + 1)
        else:
            self._tail += _INT16.pack(len(data))
        self._tail += data
        return self

    def uuid(self, value: UUID) -> "Writer":
        self._tail += value.bytes
        return self

    def blob(self, value: Part | None) -> "Writer":
        if value is None:
            return self._length(-1)
        self._length(len(value))
        self._tail += value
        return self

    def records(self, parts: Sequence[Part]) -> "Writer":
        """Write record batches as one bytes field without copying them."""
        self._length(sum(map(len, parts)))
        if parts:
            self._parts.append(self._tail)
            self._parts.extend(parts)
            self._tail = bytearray()
        return self

    def array(self, items: Sequence[T] | None, write: Callable[[T], object]) -> "Writer":
        """Write a count and each item by `write`; None as null."""
        if items is None:
            return self._length(-1)
        self._length(len(items))
        for item in items:
            write(item)
        return self

    def structs(self, items: Sequence[T] | None, write: Callable[[T], object]) -> "Writer":
        """Write an array of structs, `write` one each; None as null."""
        if not self._is_flexible:
            return self.array(items, write)

        def struct(item: T) -> None:
            write(item)
            self._tail += _NO_TAGS

        return self.array(items, struct)

    def tags(self, *fields: tuple[int, bytes]) -> "Writer":
        """Write tagged fields, (tag, content), in the order of their tags; the classic encoding has none."""
        if self._is_flexible:
            self._unsigned(len(fields))
            for tag, content in fields:
                self._unsigned(tag)._unsigned(len(content))
                self._tail += content
        return self

    def _length(self, length: int) -> "Writer":
        if self._is_flexible:
            return self._unsigned(length + 1)
        self._tail += _INT32.pack(length)
        return self

    def _unsigned(self, number: int) -> "Writer":
        while number > 0x7F:
            self._tail.append(number & 0x7F | 0x80)
            number >>= 7
        self._tail.append(number)
        return self

    def overwrite_int32(self, value: int, at: int) -> None:
        """Replace a written integer at a position from the beginning, or, if negative, from the end."""
        part = self._parts[0] if self._parts and at >= 0 else self._tail
        assert isinstance(part, bytearray), "an answer does not begin with records"
        _INT32.pack_into(part, at, value)

    def __len__(self) -> int:
        return sum(map(len, self._parts)) + len(self._tail)

    def frame(self, correlation: int) -> list[Part]:
        """Finish: the size prefix, the correlation id and the body, as parts to send in order."""
        head = _NO_TAGS if self._is_flexible else b""
        self._tail += head  # the tagged fields of the body as a whole
        body = [*self._parts, self._tail]
        return [_FRAME.pack(4 + len(head) + sum(map(len, body)), correlation) + head, *body]
