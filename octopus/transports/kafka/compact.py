"""Kafka's compact encoding (KIP-482), read and written by hand where aiokafka's schemas would take too long."""


def length_at(view: memoryview, at: int) -> tuple[int, int]:
    """Return the length of a compact string, array or run of bytes, none being 0, and where what it counts begins.

    Raises:
        ValueError: The view ends before, or a length has more bytes than there are.
    """
    value, at = _varint_at(view, at)
    return max(value - 1, 0), at


def text_at(view: memoryview, at: int) -> tuple[str, int]:
    """Return a compact string, none being empty, and where it ends. Raises as `length_at`, also for what is not UTF-8."""
    length, at = length_at(view, at)
    return str(bytes_at(view, at, length), "utf-8"), at + length


def bytes_at(view: memoryview, at: int, length: int) -> memoryview:
    """Return so many bytes. Raises `ValueError` when there are fewer."""
    if length > len(view) - at:
        raise ValueError(f"{length} bytes are announced, and {max(len(view) - at, 0)} are left")
    return view[at : at + length]


def after_tags(view: memoryview, at: int) -> int:
    """Return where tagged fields end. Raises as `length_at`."""
    count, at = _varint_at(view, at)
    if not count:
        return at
    for _ in range(count):
        _, at = _varint_at(view, at)
        size, at = _varint_at(view, at)
        at += len(bytes_at(view, at, size))
    return at


def _varint_at(view: memoryview, at: int) -> tuple[int, int]:
    if at < len(view) and (value := view[at]) < 0x80:  # nearly all are
        return value, at + 1
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(view):
            raise ValueError("the bytes end within a length")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a length has more than five bytes")


def length_of(count: int) -> bytes:
    """Write the length of something compact."""
    value, written = count + 1, bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def text_of(text: str) -> bytes:
    """Write a compact string."""
    encoded = text.encode()
    return length_of(len(encoded)) + encoded
