"""Writes events as a Kafka event source mapping does."""

import base64
from collections.abc import Iterable
from typing import Any

from octopus import Record


def encode(
    records: Iterable[Record], *, source: str = "aws:kafka", servers: str = "b-1.demo.example:9092"
) -> dict[str, Any]:
    """Return the event that delivers these records."""
    partitions: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        entry: dict[str, Any] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "timestampType": "CREATE_TIME",
            "headers": [{name: None if value is None else _signed(value)} for name, value in record.headers],
        }
        if record.key is not None:
            entry["key"] = base64.b64encode(record.key).decode()
        if record.value is not None:
            entry["value"] = base64.b64encode(record.value).decode()
        partitions.setdefault(f"{record.topic}-{record.partition}", []).append(entry)
    event: dict[str, Any] = {"eventSource": source, "bootstrapServers": servers, "records": partitions}
    if source == "aws:kafka":
        event["eventSourceArn"] = "arn:aws:kafka:us-east-1:012345678901:cluster/Sales/abcd1234-abcd-cafe-abab-1"
    return event


def failures(*offsets: int, topic: str = "files", partition: int = 0) -> list[dict[str, Any]]:
    """Return batch item failures."""
    return [{"itemIdentifier": {"partition": f"{topic}-{partition}", "offset": offset}} for offset in offsets]


def _signed(value: bytes) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in value]
