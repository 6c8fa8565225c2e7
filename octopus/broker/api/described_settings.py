"""Settings as DescribeConfigs reports them: value, type, meaning, and every source, the effective one first."""

from collections.abc import Mapping
from typing import NamedTuple

from octopus.broker.node import NODE_ID, Node
from octopus.broker.topics import DEFAULTS, KINDS, Kind

TOPIC_SOURCE, BROKER_SOURCE, DEFAULT_SOURCE = 1, 4, 5


class Synonym(NamedTuple):
    """A place that has a say about a setting."""

    name: str
    value: str
    source: int


class Setting(NamedTuple):
    """A setting of a topic or of the broker."""

    key: str
    value: str
    kind: Kind
    is_fixed: bool
    synonyms: list[Synonym]
    documentation: str

    @property
    def source(self) -> int:
        """The source of a value."""
        return self.synonyms[0].source if self.synonyms else DEFAULT_SOURCE


class _Known(NamedTuple):
    """A setting of the broker, with Kafka's default."""

    kind: Kind
    default: str | None
    documentation: str


def topic_settings(config: Mapping[str, str], broker: Mapping[str, str]) -> list[Setting]:
    """Describe the settings of a topic that sets `config`, on a broker that sets `broker` for all topics."""
    described = []
    for key, default in DEFAULTS.items():
        synonyms = [Synonym(key, config[key], TOPIC_SOURCE)] if key in config else []
        synonyms += _by_broker(key, broker)
        value = synonyms[0].value if synonyms else default
        described.append(Setting(key, value, _kind(key), False, synonyms, _TOPICS[key]))
    return described


def broker_settings(node: Node) -> list[Setting]:
    """Describe the settings of the broker; none can be changed while it runs."""
    described = []
    for key, value in _values(node).items():
        kind, default, documentation = _BROKER[key]
        synonyms = [] if default is None else [Synonym(key, default, DEFAULT_SOURCE)]
        if value != default:
            synonyms.insert(0, Synonym(key, value, BROKER_SOURCE))
        described.append(Setting(key, value, kind, True, synonyms, documentation))
    return described + _for_all_topics(node.storage.settings.topic_defaults)


def _for_all_topics(broker: Mapping[str, str]) -> list[Setting]:
    named = [(key, _by_broker(key, broker)) for key in DEFAULTS]
    return [
        Setting(_NAMES[key], synonyms[0].value, _kind(key), True, synonyms, f"For all topics: {_TOPICS[key]}")
        for key, synonyms in named
        if synonyms
    ]


def _by_broker(key: str, broker: Mapping[str, str]) -> list[Synonym]:
    name = _NAMES[key]
    set_ = [Synonym(name, broker[key], BROKER_SOURCE)] if key in broker else []
    return set_ if key in _WITHOUT_DEFAULT else [*set_, Synonym(name, DEFAULTS[key], DEFAULT_SOURCE)]


def _kind(key: str) -> Kind:
    return KINDS.get(key, "long")


def _values(node: Node) -> dict[str, str]:
    settings, limits, storage = node.settings, node.limits, node.storage.settings
    return {
        "auto.create.topics.enable": str(settings.auto_create).lower(),
        "broker.id": str(NODE_ID),
        "default.replication.factor": "1",
        "fetch.max.bytes": str(limits.max_fetch_bytes),
        "group.initial.rebalance.delay.ms": str(settings.join_window_ms),
        "group.max.session.timeout.ms": str(limits.max_session_timeout_ms),
        "group.max.size": str(limits.max_members),
        "group.min.session.timeout.ms": str(limits.min_session_timeout_ms),
        "max.connections": str(limits.max_connections),
        "node.id": str(NODE_ID),
        "num.partitions": str(settings.default_partitions),
        "offset.metadata.max.bytes": str(limits.max_metadata_bytes),
        "offsets.retention.minutes": str(storage.offsets_retention_ms // 60_000),
        "producer.id.expiration.ms": str(storage.producer_expiry_ms),
        "sasl.enabled.mechanisms": ",".join(settings.mechanisms),
        "socket.request.max.bytes": str(limits.max_request_bytes),
        "transaction.max.timeout.ms": str(limits.max_transaction_timeout_ms),
        "transactional.id.expiration.ms": str(limits.transactional_id_expiry_ms),
    }


_BROKER: Mapping[str, _Known] = {
    "auto.create.topics.enable": _Known("boolean", "true", "Whether asking for an unknown topic may create it."),
    "broker.id": _Known("int", "-1", "The number of this broker."),
    "default.replication.factor": _Known("int", "1", "Replicas of a topic that does not say; there is one broker."),
    "fetch.max.bytes": _Known("int", "57671680", "Most bytes of records in one answer."),
    "group.initial.rebalance.delay.ms": _Known("int", "3000", "How long an empty group waits for further members."),
    "group.max.session.timeout.ms": _Known("int", "1800000", "The longest session that a member may ask for."),
    "group.max.size": _Known("int", "2147483647", "Most members of a group."),
    "group.min.session.timeout.ms": _Known("int", "6000", "The shortest session that a member may ask for."),
    "max.connections": _Known("int", "2147483647", "Most connections at a time."),
    "node.id": _Known("int", None, "The number of this node."),
    "num.partitions": _Known("int", "1", "Partitions of a topic that does not say."),
    "offset.metadata.max.bytes": _Known("int", "4096", "Most bytes beside a committed offset."),
    "offsets.retention.minutes": _Known("int", "10080", "How long offsets of a group without members are kept."),
    "producer.id.expiration.ms": _Known("int", "86400000", "How long sequence numbers of a silent producer are kept."),
    "sasl.enabled.mechanisms": _Known("list", "GSSAPI", "How clients may log in; they need not where it is empty."),
    "socket.request.max.bytes": _Known("int", "104857600", "Most bytes of a request."),
    "transaction.max.timeout.ms": _Known("int", "900000", "The longest time that a transaction may be open."),
    "transactional.id.expiration.ms": _Known("int", "604800000", "How long an idle transactional id is remembered."),
}

_WITHOUT_EFFECT = " Kept and shown; it changes nothing here."
_TOPICS: Mapping[str, str] = {
    "cleanup.policy": "Whether old segments are deleted, compacted, both, or, if it is empty, kept.",
    "compression.gzip.level": "How much to compress with gzip.",
    "compression.lz4.level": "How much to compress with lz4.",
    "compression.type": "The codec in which records are stored; producer: that in which they were sent.",
    "compression.zstd.level": "How much to compress with zstd.",
    "delete.retention.ms": "How long a compacted topic keeps the records that delete a key.",
    "file.delete.delay.ms": "How long files of deleted segments stay." + _WITHOUT_EFFECT,
    "flush.messages": "After how many records to flush to disk." + _WITHOUT_EFFECT,
    "flush.ms": "After how long to flush to disk." + _WITHOUT_EFFECT,
    "index.interval.bytes": "How dense the index is." + _WITHOUT_EFFECT,
    "max.compaction.lag.ms": "How long a record may stay uncompacted." + _WITHOUT_EFFECT,
    "max.decompressed.message.bytes": "Most bytes that a message may decompress to." + _WITHOUT_EFFECT,
    "max.message.bytes": "Most bytes of a batch, as it is stored.",
    "message.timestamp.after.max.ms": "How far a record's time may lie ahead.",
    "message.timestamp.before.max.ms": "How far a record's time may lie back.",
    "message.timestamp.type": "Whether a record's time is when it was created or when it was appended.",
    "min.cleanable.dirty.ratio": "How much of a log must be new for compaction." + _WITHOUT_EFFECT,
    "min.compaction.lag.ms": "How long a record stays uncompacted." + _WITHOUT_EFFECT,
    "min.insync.replicas": "How many replicas must have a record." + _WITHOUT_EFFECT,
    "preallocate": "Whether files are made in their final size." + _WITHOUT_EFFECT,
    "retention.bytes": "Most bytes of a partition; the oldest segments beyond it are deleted; -1: no limit.",
    "retention.ms": "How long records are kept; -1: for ever.",
    "segment.bytes": "Most bytes of a segment.",
    "segment.index.bytes": "Most bytes of an index." + _WITHOUT_EFFECT,
    "segment.jitter.ms": "How far the ends of segments are spread." + _WITHOUT_EFFECT,
    "segment.ms": "After how long a new segment begins.",
    "unclean.leader.election.enable": "Whether a replica that lags may lead." + _WITHOUT_EFFECT,
}

_NAMES: Mapping[str, str] = {key: f"log.{key}" for key in DEFAULTS} | {
    "compression.gzip.level": "compression.gzip.level",
    "compression.lz4.level": "compression.lz4.level",
    "compression.type": "compression.type",
    "compression.zstd.level": "compression.zstd.level",
    "delete.retention.ms": "log.cleaner.delete.retention.ms",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "flush.messages": "log.flush.interval.messages",
    "flush.ms": "log.flush.interval.ms",
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms",
    "max.decompressed.message.bytes": "max.decompressed.message.bytes",
    "max.message.bytes": "message.max.bytes",
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio",
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms",
    "min.insync.replicas": "min.insync.replicas",
    "segment.index.bytes": "log.index.size.max.bytes",
    "segment.jitter.ms": "log.roll.jitter.ms",
    "segment.ms": "log.roll.ms",
    "unclean.leader.election.enable": "unclean.leader.election.enable",
}
"""The broker's name for a topic's setting, which sets it for all topics."""

_WITHOUT_DEFAULT = frozenset({"flush.ms", "retention.ms", "segment.jitter.ms", "segment.ms"})
"""Settings without a value there: Kafka has the default in a setting of another unit."""
