"""From the JSON of a Kafka event source mapping to records.

Source: AWS Lambda developer guide, "Process Amazon MSK messages" and "Process Apache Kafka messages" (example events).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from octopus.errors import ConfigurationError
from octopus.events import Headers, Record, TopicPartition

SOURCES = ("aws:kafka", "SelfManagedKafka", "aws:SelfManagedKafka")
"""Values of `eventSource`: Amazon MSK, self-managed clusters, and an older spelling of these."""


class KafkaEvent(NamedTuple):
    """One invocation's records.

    Attributes:
        records: By partition, in offset order, each offset once.
        bootstrap_servers: The cluster they come from.
    """

    records: dict[TopicPartition, list[Record]]
    bootstrap_servers: tuple[str, ...] = ()


def decode(event: Any) -> KafkaEvent:
    """Read an event; nothing of it is guessed.

    Raises:
        ConfigurationError: It does not come from a Kafka event source mapping, or is damaged; the sentence says where.
    """
    if not isinstance(event, Mapping):
        raise ConfigurationError(
            f"This function takes the events of a Kafka event source mapping, not a {type(event).__name__}."
        )
    source = event.get("eventSource")
    if source not in SOURCES:
        raise ConfigurationError(
            f"This function takes the events of a Kafka event source mapping; eventSource is {_shown(source)} instead of "
            f"{', '.join(map(repr, SOURCES[:2]))}. Look at what else invokes it."
        )
    entries = event.get("records")
    if not isinstance(entries, Mapping):
        raise ConfigurationError(f"The Kafka event has no records by partition; records is {_shown(entries)}.")
    found: dict[TopicPartition, dict[int, Record]] = {}
    for name, partition in entries.items():
        if not isinstance(partition, list):
            raise ConfigurationError(f"records[{name!r}] of the Kafka event is not a list but {_shown(partition)}.")
        for index, entry in enumerate(partition):
            try:
                record = _record(name, entry)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"records[{name!r}][{index}] of the Kafka event cannot be read: {type(error).__name__}: {error}."
                ) from error
            found.setdefault(TopicPartition(record.topic, record.partition), {}).setdefault(record.offset, record)
    servers = str(event.get("bootstrapServers") or "")
    return KafkaEvent(
        {partition: [records[offset] for offset in sorted(records)] for partition, records in found.items()},
        tuple(server.strip() for server in servers.split(",") if server.strip()),
    )


def _record(name: str, entry: Mapping[str, Any]) -> Record:
    # The name of the list is only a fallback: topics may contain the dash that separates topic and partition in it.
    topic, partition = entry.get("topic"), entry.get("partition")
    if topic is None or partition is None:
        topic, _, partition = name.rpartition("-")
    return Record(
        str(topic),
        int(partition),
        int(entry["offset"]),
        int(entry.get("timestamp") or 0),
        _bytes(entry.get("key")),
        _bytes(entry.get("value")),
        _headers(entry.get("headers") or ()),
    )


def _bytes(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:40]!r} is not base64 ({error})") from error


def _headers(entries: Any) -> Headers:
    # A list of objects with one name each, because order and duplicates count. Java's bytes are signed.
    return tuple(
        (name, None if numbers is None else bytes([number & 0xFF for number in numbers]))
        for entry in entries
        for name, numbers in entry.items()
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
