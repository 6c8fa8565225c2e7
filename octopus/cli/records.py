"""A record as a JSON object: nothing is lost, and JSON stays JSON."""

import base64
from typing import Any

import msgspec

from octopus.events import StoredRecord, TopicPartition


def as_json(partition: TopicPartition, record: StoredRecord) -> dict[str, Any]:
    """Return a record for `msgspec.json.encode`.

    `value` is the JSON itself with `encoding` "json", text with "text", base64 with "base64", null for a tombstone.
    """
    value, encoding = _value(record.value)
    return {
        "topic": partition.topic,
        "partition": partition.partition,
        "offset": record.offset,
        "timestamp": record.timestamp / 1000,
        "key": _text(record.key),
        "headers": [[name, _text(content)] for name, content in record.headers],
        "encoding": encoding,
        "value": value,
    }


def _value(data: bytes | None) -> tuple[Any, str | None]:
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


def _text(data: bytes | None) -> str | None:
    return None if data is None else bytes(data).decode("utf-8", "backslashreplace")
