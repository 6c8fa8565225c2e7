"""Records for people and programs: as JSON where nothing is lost and JSON stays JSON, and chosen by event patterns."""

import base64
from typing import Any

import msgspec

from octopus.errors import DecodeError
from octopus.events import Headers, StoredRecord, TopicPartition
from octopus.patterns import Pattern


class ReadableRecord(msgspec.Struct, frozen=True):
    """A record whose texts are texts, for `msgspec.json.encode`. Bytes that are not UTF-8 are escaped with backslashes.

    Attributes:
        topic: Where it is.
        partition: Where in the topic.
        offset: Where in the partition.
        timestamp: Seconds since the epoch.
        key: None for none.
        headers: Name and content of each; None for a header without content.
        encoding: What `value` is: `json`, `text` or `base64`; None for a tombstone.
        value: The JSON itself (`msgspec.Raw`), text, bytes in base64, or None.
    """

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: str | None
    headers: tuple[tuple[str, str | None], ...]
    encoding: str | None
    value: Any


def readable(partition: TopicPartition, record: StoredRecord) -> ReadableRecord:
    """Return a record of a partition as people and programs read it."""
    value, encoding = readable_value(record.value)
    return ReadableRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=record.offset,
        timestamp=record.timestamp / 1000,
        key=_text(record.key),
        headers=readable_headers(record.headers),
        encoding=encoding,
        value=value,
    )


def readable_headers(headers: Headers) -> tuple[tuple[str, str | None], ...]:
    """Return headers as texts; what is not UTF-8 is escaped with backslashes."""
    return tuple((name, _text(content)) for name, content in headers)


def readable_value(data: bytes | None) -> tuple[Any, str | None]:
    """Return a value and what it is, as `ReadableRecord` has them."""
    if data is None:
        return None, None
    data = bytes(data)
    try:
        msgspec.json.decode(data)  # all of it: what is passed on unchecked would break the line it stands in
        return msgspec.Raw(data if b"\n" not in data else msgspec.json.format(data, indent=-1)), "json"
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return data.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


def is_match(pattern: Pattern | None, value: bytes | None) -> bool:
    """Tell whether a value matches; without a pattern every one does. A pattern speaks about JSON: what is none does not match."""
    if pattern is None:
        return True
    try:
        return value is not None and pattern.matches(bytes(value))
    except DecodeError:
        return False


def _text(data: bytes | None) -> str | None:
    return None if data is None else bytes(data).decode("utf-8", "backslashreplace")
