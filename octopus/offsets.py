"""Which offset may be committed, when records settle in any order. Pure.

Contiguous means contiguous **in received order**, not plus one: compaction, transactions and control records leave gaps.
So the ledger remembers what it received, and the committable offset is the first received one that is not settled, or
the position behind everything received when nothing is open.
"""

import base64
import binascii
from collections import deque
from collections.abc import Collection, Sequence

MAP_PREFIX = "octopus-offsets-1"
MAP_LIMIT = 4096
"""Bytes a broker keeps of a commit's metadata (`offset.metadata.max.bytes`)."""


class OffsetLedger:
    """Received and settled offsets of one generation of one partition.

    Args:
        position: The offset that will be received next.
        settled_ahead: Inclusive ranges at or above `position` that an earlier owner settled (`decode_map` reads them).

    Attributes:
        settled_count: How many records were settled since the start.
    """

    __slots__ = ("_ahead", "_open", "_position", "_settled", "settled_count")

    def __init__(self, position: int, settled_ahead: Sequence[tuple[int, int]] = ()) -> None:
        self._position = position
        self._open: deque[int] = deque()  # received, in order, from the first unsettled one on
        self._settled: set[int] = set()  # settled, but behind an open one
        self._ahead = deque(settled_ahead)
        self.settled_count = 0

    def receive(self, offsets: Sequence[int], position: int) -> Collection[int]:
        """Note records as received, in order, and where the next fetch starts.

        Returns:
            Those an earlier owner settled already: not to be run again.
        """
        self._open.extend(offsets)
        self._position = position
        if not self._ahead:
            return ()
        known = [offset for offset in offsets if self._was_settled(offset)]
        for offset in known:
            self.settle(offset)
        self.settled_count -= len(known)
        return known

    def settle(self, offset: int) -> None:
        """Note that a received record's outcome is final.

        Raises:
            ValueError: It was settled before, or never received.
        """
        waiting = self._open
        if not waiting or offset < waiting[0] or offset in self._settled:
            raise ValueError(f"offset {offset} was settled twice, or never received")
        self.settled_count += 1
        if offset != waiting[0]:
            self._settled.add(offset)
            return
        waiting.popleft()
        settled = self._settled
        while settled and waiting[0] in settled:
            settled.remove(waiting.popleft())

    def settle_first(self, count: int) -> None:
        """Settle the first `count` open records, those that a sequential lane has finished."""
        waiting, settled = self._open, self._settled
        self.settled_count += count
        for _ in range(count):
            waiting.popleft()
            while settled and waiting and waiting[0] in settled:
                settled.remove(waiting.popleft())

    @property
    def committable(self) -> int:
        """The offset to commit: everything received before it is settled."""
        return self._open[0] if self._open else self._position

    @property
    def position(self) -> int:
        """The offset that will be received next."""
        return self._position

    @property
    def in_flight(self) -> int:
        """How many records are received and not settled."""
        return len(self._open) - len(self._settled)

    @property
    def ahead(self) -> int:
        """How many records are settled but cannot be committed yet, because an earlier one is open."""
        return len(self._settled)

    def unsettled(self) -> list[int]:
        """Return the offsets that are received and not settled, in order."""
        return [offset for offset in self._open if offset not in self._settled]

    def settled_ahead(self) -> list[tuple[int, int]]:
        """Return inclusive ranges of offsets settled beyond the committable one, merged over offsets that do not exist."""
        ranges: list[tuple[int, int]] = []
        first = last = -1
        for offset in self._open if self._settled else ():
            if offset in self._settled:
                first, last = (offset if first < 0 else first), offset
            elif first >= 0:
                ranges.append((first, last))
                first = -1
        if first >= 0:
            ranges.append((first, last))
        return ranges + [bounds for bounds in self._ahead if bounds[0] >= self._position]

    def _was_settled(self, offset: int) -> bool:
        ahead = self._ahead
        while ahead and ahead[0][1] < offset:
            ahead.popleft()
        return bool(ahead) and ahead[0][0] <= offset


def encode_map(base: int, ranges: Sequence[tuple[int, int]], limit: int = MAP_LIMIT) -> str:
    """Write settled ranges beyond `base` as commit metadata: `octopus-offsets-1 BASE CHECKSUM RUNS`.

    RUNS is base64 of varints, alternating the distance to the next range and its length less one. Empty ranges and a
    map longer than `limit` bytes give the empty string: a plain offset is always right, only less precise.
    """
    if not ranges:
        return ""
    runs = bytearray()
    at = base
    for first, last in ranges:
        _put_varint(runs, first - at)
        _put_varint(runs, last - first)
        at = last + 1
    text = base64.b64encode(bytes(runs)).decode()
    encoded = f"{MAP_PREFIX} {base} {binascii.crc32(f'{base} {text}'.encode()):08x} {text}"
    return encoded if len(encoded) <= limit else ""


def decode_map(base: int, metadata: str) -> list[tuple[int, int]]:
    """Read what `encode_map` wrote; anything else means "nothing known", never an error.

    A map whose base is not the committed offset is ignored: somebody reset the group.
    """
    match metadata.split(" "):
        case [prefix, written, checksum, text] if prefix == MAP_PREFIX and written == str(base):
            pass
        case _:
            return []
    if f"{binascii.crc32(f'{written} {text}'.encode()):08x}" != checksum:
        return []
    try:
        numbers = _varints(base64.b64decode(text, validate=True))
    except ValueError:
        return []
    ranges = []
    at = base
    for distance, length in zip(numbers[::2], numbers[1::2], strict=False):
        first = at + distance
        ranges.append((first, first + length))
        at = first + length + 1
    return ranges


def _put_varint(buffer: bytearray, number: int) -> None:
    while number > 0x7F:
        buffer.append(number & 0x7F | 0x80)
        number >>= 7
    buffer.append(number)


def _varints(data: bytes) -> list[int]:
    numbers = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    return numbers
