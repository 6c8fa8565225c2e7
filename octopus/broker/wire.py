"""Primitive types of the Kafka wire protocol: a bounds-checked reader and a writer of parts.

Only the classic (not flexible) encoding is spoken: big-endian integers, strings with an i16 length, bytes and arrays with
an i32 length, -1 for null. Source: https://kafka.apache.org/protocol#protocol_types.
"""

from collections.abc import Callable, Sequence
from struct import Struct, error
from typing import TypeVar

T = TypeVar("T")
Part = bytes | bytearray | memoryview

_INT8, _INT16, _INT32, _INT64 = Struct(">b"), Struct(">h"), Struct(">i"), Struct(">q")
_FRAME = Struct(">ii")


class MalformedRequest(Exception):
    """The bytes are not the request they claim to be; only closing the connection is safe."""


class Reader:
    """Read primitive values from one request, never past its end and never allocating more than it holds."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

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
        length = self._integer(_INT16)
        if length == -1:
            return None
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError as problem:
            raise MalformedRequest(f"string before byte {self._at} is not UTF-8") from problem

    def blob(self) -> bytes:
        return bytes(self.view())

    def view(self) -> memoryview:
        """Read bytes without copying them; null reads as empty."""
        length = self._integer(_INT32)
        return self._take(0 if length == -1 else length)

    def rest(self) -> bytes:
        """Read all that is left."""
        return bytes(self._take(self.remaining))

    def array(self, item: Callable[[], T]) -> list[T]:
        """Read an array; null reads as empty."""
        return self.nullable_array(item) or []

    def nullable_array(self, item: Callable[[], T]) -> list[T] | None:
        count = self._integer(_INT32)
        if count == -1:
            return None
        # Every item takes at least one byte, so a count beyond what is left is a lie, found before anything is allocated.
        if count < 0 or count > self.remaining:
            raise MalformedRequest(f"array of {count} items in {self.remaining} bytes")
        return [item() for _ in range(count)]

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
    """

    __slots__ = ("_parts", "_tail")

    def __init__(self) -> None:
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
            return self.int16(-1)
        data = value.encode()
        if len(data) > 32767:
            data = data[:32767].decode(errors="ignore").encode()
        self._tail += _INT16.pack(len(data))
        self._tail += data
        return self

    def blob(self, value: Part | None) -> "Writer":
        if value is None:
            return self.int32(-1)
        self._tail += _INT32.pack(len(value))
        self._tail += value
        return self

    def records(self, parts: Sequence[Part]) -> "Writer":
        """Write record batches as one bytes field without copying them."""
        self._tail += _INT32.pack(sum(map(len, parts)))
        if parts:
            self._parts.append(self._tail)
            self._parts.extend(parts)
            self._tail = bytearray()
        return self

    def array(self, items: Sequence[T] | None, write: Callable[[T], object]) -> "Writer":
        """Write a count and each item by `write`; None as null."""
        if items is None:
            return self.int32(-1)
        self._tail += _INT32.pack(len(items))
        for item in items:
            write(item)
        return self

    def overwrite_int32(self, value: int, *, at_end: bool) -> None:
        """Replace what was written first, or last, as an integer."""
        if at_end:
            self._tail[-4:] = _INT32.pack(value)
        else:
            first = self._parts[0] if self._parts else self._tail
            assert isinstance(first, bytearray), "an answer does not begin with records"
            first[:4] = _INT32.pack(value)

    def __len__(self) -> int:
        return sum(map(len, self._parts)) + len(self._tail)

    def frame(self, correlation: int) -> list[Part]:
        """Finish: the size prefix, the correlation id and the body, as parts to send in order."""
        body = [*self._parts, self._tail]
        return [_FRAME.pack(4 + sum(map(len, body)), correlation), *body]
