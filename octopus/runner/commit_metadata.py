"""What a commit says beside its offset: which topic it is of, and the offset map of what is settled beyond it. Pure."""

import base64
import binascii
from collections.abc import Sequence

from octopus.runner.ledger import OffsetLedger

TOPIC_PREFIX = "octopus-topic-1:"
MAP_PREFIX = "octopus-offsets-1"
MAP_LIMIT = 4096
"""Bytes a broker keeps of a commit's metadata (`offset.metadata.max.bytes`)."""


def with_topic_id(metadata: str, topic_id: str | None) -> str:
    """Write before a commit's metadata which topic its offset is of: `octopus-topic-1:ID METADATA`.

    Args:
        metadata: An offset map, an anchor, or nothing.
        topic_id: None when it is not known.
    """
    return metadata if topic_id is None else f"{TOPIC_PREFIX}{topic_id} {metadata}".rstrip()


def topic_id_of(metadata: str) -> str | None:
    """Return the id of the topic that a committed offset is of; None when the commit does not say."""
    first = metadata.partition(" ")[0]
    return (first.removeprefix(TOPIC_PREFIX) or None) if first.startswith(TOPIC_PREFIX) else None


def without_topic_id(metadata: str) -> str:
    """Return the rest of what `with_topic_id` wrote."""
    return metadata.partition(" ")[2] if metadata.startswith(TOPIC_PREFIX) else metadata


def map_limit(topic_id: str | None) -> int:
    """Return how long a map may be beside a topic id, with a byte to spare: librdkafka sends a zero behind metadata."""
    return MAP_LIMIT if topic_id is None else MAP_LIMIT - len(with_topic_id("", topic_id)) - 2


def metadata_of(ledger: OffsetLedger, topic_id: str | None) -> str:
    """Return what a commit of the committable offset says beside it: the topic that it is of, and what is settled beyond."""
    ahead = encode_map(ledger.committable, ledger.settled_ahead(), map_limit(topic_id))
    return with_topic_id(ahead, topic_id)


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

    A map whose base is not the committed offset is ignored: the group was reset.
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
