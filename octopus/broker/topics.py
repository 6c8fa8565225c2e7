"""Topics: names, configuration keys, and the catalog's entry for one topic."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID, uuid4

from octopus.broker.codecs import NAMES, NONE, Codecs, is_known
from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Log, LogConfig

Source: TypeAlias = Literal["topic", "broker", "default"]
Kind: TypeAlias = Literal["boolean", "double", "int", "list", "long", "string"]

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}\Z")
_NUMBER = re.compile(r"-?[0-9]{1,19}\Z")
_FRACTION = re.compile(r"[0-9]*\.?[0-9]+\Z")
_POLICIES = frozenset({"delete", "compact"})
_DASH = 62  # the sextet that base64 writes as "-"
_AS_SENT = "producer"

DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "compression.gzip.level": "-1",
    "compression.lz4.level": "9",
    "compression.type": "producer",
    "compression.zstd.level": "3",
    "delete.retention.ms": str(24 * 3600 * 1000),
    "file.delete.delay.ms": str(60 * 1000),
    "flush.messages": str(2**63 - 1),
    "flush.ms": str(2**63 - 1),
    "index.interval.bytes": str(4096),
    "max.compaction.lag.ms": str(2**63 - 1),
    "max.decompressed.message.bytes": str(2**31 - 9),
    "max.message.bytes": str(1_048_588),
    "message.timestamp.after.max.ms": str(3600 * 1000),
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.type": "CreateTime",
    "min.cleanable.dirty.ratio": "0.5",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "preallocate": "false",
    "retention.bytes": "-1",
    "retention.ms": str(7 * 24 * 3600 * 1000),
    "segment.bytes": str(64 * 2**20),
    "segment.index.bytes": str(10 * 2**20),
    "segment.jitter.ms": "0",
    "segment.ms": str(7 * 24 * 3600 * 1000),
    "unclean.leader.election.enable": "false",
}
"""Every configuration key a topic has, with Kafka's default (segments are smaller: an edge disk is)."""

WITHOUT_EFFECT = frozenset(
    {
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "index.interval.bytes",
        "max.compaction.lag.ms",
        "max.decompressed.message.bytes",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "segment.index.bytes",
        "segment.jitter.ms",
        "unclean.leader.election.enable",
    }
)
"""Kept and shown, because programs that set them should go on; one broker that syncs before it answers needs none of them."""

KINDS: Mapping[str, Kind] = {
    "cleanup.policy": "list",
    "compression.gzip.level": "int",
    "compression.lz4.level": "int",
    "compression.type": "string",
    "compression.zstd.level": "int",
    "index.interval.bytes": "int",
    "max.decompressed.message.bytes": "int",
    "max.message.bytes": "int",
    "message.timestamp.type": "string",
    "min.cleanable.dirty.ratio": "double",
    "min.insync.replicas": "int",
    "preallocate": "boolean",
    "segment.bytes": "int",
    "segment.index.bytes": "int",
    "unclean.leader.election.enable": "boolean",
}
"""The types of keys' values; keys not named have longs."""

_RANGES: Mapping[str, tuple[int, int]] = {
    "compression.gzip.level": (-1, 9),
    "compression.lz4.level": (1, 17),
    "compression.zstd.level": (-131072, 22),
    "flush.messages": (1, 2**63 - 1),
    "max.compaction.lag.ms": (1, 2**63 - 1),
    "min.insync.replicas": (1, 2**31 - 1),
    "retention.bytes": (-1, 2**63 - 1),
    "retention.ms": (-1, 2**63 - 1),
    "segment.bytes": (14, 2**31 - 1),
    "segment.index.bytes": (4, 2**31 - 1),
    "segment.ms": (1, 2**63 - 1),
}


class ConfigValue(NamedTuple):
    """A configuration value and its source."""

    value: str
    source: Source


class Partitions:
    """A topic's logs, each opened when it is first asked for: partitions that are not used cost neither memory nor upkeep.

    Args:
        count: How many there are.
        opening: Opens one.

    Attributes:
        opened: Those that were asked for, by number.
    """

    def __init__(self, count: int, opening: Callable[[int], Log], opened: dict[int, Log] | None = None) -> None:
        self.opened = {} if opened is None else opened
        self._count = count
        self._opening = opening

    def grown(self, count: int) -> "Partitions":
        """Return the same with more partitions."""
        return Partitions(count, self._opening, self.opened)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Log:
        log = self.opened.get(number)
        if log is None:
            if not 0 <= number < self._count:
                raise IndexError(number)
            log = self.opened[number] = self._opening(number)
        return log

    def __iter__(self) -> Iterator[Log]:
        return map(self.__getitem__, range(self._count))


@dataclass
class Topic:
    """A topic of the catalog.

    Attributes:
        name: The client's name for it; never part of a path.
        id: Tells it from other topics of the same name, before and after it.
        folder: Number and name of the topic's folder; never reused.
        partitions: One log per partition.
        config: Settings of the topic itself; `Storage.config_of` has the effective ones.
        internal: Whether the name starts with `__`.
    """

    name: str
    id: UUID
    folder: int
    partitions: Partitions
    config: dict[str, str] = field(default_factory=dict)

    @property
    def internal(self) -> bool:
        """Whether the name is one of the reserved ones."""
        return self.name.startswith("__")


def new_id() -> UUID:
    """Return an id for a new topic. No id of Kafka's begins with `-` in base64: tools would take it for an option."""
    while (fresh := uuid4()).bytes[0] >> 2 == _DASH:
        pass
    return fresh


def check_name(name: str) -> None:
    """Refuse an invalid topic name (Kafka's rule, which also keeps out anything path-like).

    Raises:
        BrokerError: 17 INVALID_TOPIC_EXCEPTION.
    """
    if not _NAME.match(name) or name in {".", ".."}:
        raise BrokerError(
            Code.INVALID_TOPIC_EXCEPTION,
            f"{name[:60]!r} is not a topic name: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'.",
        )


def check_config(config: Mapping[str, str], codecs: Codecs) -> None:
    """Refuse unknown configuration keys, values that do not fit, and codecs that nothing here writes.

    Raises:
        BrokerError: 40 INVALID_CONFIG.
    """
    for key, value in config.items():
        if key not in DEFAULTS:
            known = ", ".join(DEFAULTS)
            raise BrokerError(Code.INVALID_CONFIG, f"{key[:60]!r} is not a topic configuration; known are {known}.")
        if not _fits(key, value):
            raise BrokerError(Code.INVALID_CONFIG, f"{value[:60]!r} is not a value for {key}.")
    wanted = NAMES.get(config.get("compression.type", _AS_SENT), NONE)
    if not is_known(wanted, codecs):
        raise BrokerError(Code.INVALID_CONFIG, f"This broker cannot compress with {config['compression.type']}.")


def described(config: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, ConfigValue]:
    """Return every configuration key as it is for a topic that sets `config`, under a broker that sets `defaults`."""
    values = {}
    for key, value in DEFAULTS.items():
        if key in config:
            values[key] = ConfigValue(config[key], "topic")
        elif key in defaults:
            values[key] = ConfigValue(defaults[key], "broker")
        else:
            values[key] = ConfigValue(value, "default")
    return values


def log_config(config: Mapping[str, str]) -> LogConfig:
    """Return a log's settings, from every configuration key."""
    policies = config["cleanup.policy"].replace(" ", "").split(",")
    compression = config["compression.type"]
    level = config.get(f"compression.{compression}.level")
    return LogConfig(
        codec=NAMES.get(compression),
        codec_level=None if level is None else int(level),
        max_message_bytes=int(config["max.message.bytes"]),
        log_append_time=config["message.timestamp.type"] == "LogAppendTime",
        compact="compact" in policies,
        delete="delete" in policies,
        retention_ms=int(config["retention.ms"]),
        retention_bytes=int(config["retention.bytes"]),
        segment_bytes=int(config["segment.bytes"]),
        segment_ms=int(config["segment.ms"]),
        timestamp_before_max_ms=int(config["message.timestamp.before.max.ms"]),
        timestamp_after_max_ms=int(config["message.timestamp.after.max.ms"]),
        delete_retention_ms=int(config["delete.retention.ms"]),
    )


def _fits(key: str, value: str) -> bool:
    match key, KINDS.get(key, "long"):
        case "cleanup.policy", _:  # empty: neither deleted nor compacted
            return set(filter(None, value.replace(" ", "").split(","))) <= _POLICIES
        case "compression.type", _:
            return value == _AS_SENT or value in NAMES
        case "message.timestamp.type", _:
            return value in {"CreateTime", "LogAppendTime"}
        case "compression.gzip.level", _ if value == "0":
            return False
        case _, "boolean":
            return value.casefold() in {"true", "false"}
        case _, "double":
            return bool(_FRACTION.match(value)) and 0 <= float(value) <= 1
        case _, kind:
            least, most = _RANGES.get(key, (0, 2**31 - 1 if kind == "int" else 2**63 - 1))
            return bool(_NUMBER.match(value)) and least <= int(value) <= most
