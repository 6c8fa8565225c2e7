"""Events and records to call a handler with, for tests that need no app at all."""

from typing import Any, TypeVar

from octopus.events import Event, Record
from octopus.publishing import HeadersLike, encode_headers, encode_key
from octopus.serde import encode

T = TypeVar("T")

EPOCH = 1_700_000_000_000
"""When built records were stored, milliseconds since the epoch: fixed, so that tests repeat."""


def event(
    value: T,
    *,
    topic: str = "events",
    partition: int = 0,
    offset: int = 0,
    key: bytes | str | None = None,
    headers: HeadersLike = (),
    timestamp: float | None = None,
    attempt: int = 1,
) -> Event[T]:
    """Return an event as a handler gets it: `await handler(event(File("/data/a", 3), key="a"))`.

    Args:
        value: Decoded, as the handler wants it.
        topic: Where it would come from.
        partition: And which of its partitions.
        offset: And where in it.
        key: Text is UTF-8.
        headers: Name and value pairs, or a mapping.
        timestamp: Seconds since the epoch.
        attempt: 1 for the first delivery.
    """
    made = record(value, topic=topic, partition=partition, offset=offset, key=key, headers=headers, timestamp=timestamp)
    return Event(value, made, attempt)


def record(
    value: Any,
    *,
    topic: str = "events",
    partition: int = 0,
    offset: int = 0,
    key: bytes | str | None = None,
    headers: HeadersLike = (),
    timestamp: float | None = None,
) -> Record:
    """Return a record as a broker stores it; the value is encoded as `app.publish` would."""
    stored_at = EPOCH + offset if timestamp is None else round(timestamp * 1000)
    return Record(topic, partition, offset, stored_at, encode_key(key), encode(value), tuple(encode_headers(headers)))


def records(*values: Any, topic: str = "events", partition: int = 0, first: int = 0) -> list[Record]:
    """Return one record for each value, at consecutive offsets from `first` on."""
    return [
        record(value, topic=topic, partition=partition, offset=offset) for offset, value in enumerate(values, first)
    ]
