"""A data directory (or memory): the catalog of topics, their logs, committed offsets, producers."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from octopus.broker.batch import Decompressors
from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Log
from octopus.broker.offsets import OffsetStore
from octopus.broker.producers import ProducerStore
from octopus.broker.topics import DEFAULTS, ConfigValue, Topic, check_config, check_name


@dataclass(frozen=True)
class StorageSettings:
    """How a data directory is kept.

    Attributes:
        durability: `"fsync"`: what was acknowledged survives power loss; `"os"`: it survives the process only.
        topic_defaults: Topic configuration (Kafka's names) that applies where a topic sets none.
        offsets_retention_ms: How long an inactive group's offsets are kept.
        producer_expiry_ms: How long the sequence numbers of a silent producer are remembered.
        max_topics: Most topics.
        max_partitions: Most partitions in all.
    """

    durability: Literal["fsync", "os"] = "fsync"
    topic_defaults: Mapping[str, str] = field(default_factory=dict)
    offsets_retention_ms: int = 7 * 24 * 3600 * 1000
    producer_expiry_ms: int = 24 * 3600 * 1000
    max_topics: int = 1000
    max_partitions: int = 10_000


class Storage:
    """What a broker keeps. One thread (an event loop's) calls everything here.

    Attributes:
        topics: The catalog; changed by the methods below only.
        offsets: Committed offsets.
        producers: Producer ids and transactions.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self.topics: dict[str, Topic] = {}
        self.offsets = OffsetStore()
        self.producers = ProducerStore()
        self.cluster_id = "memory"

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        settings: StorageSettings | None = None,
        *,
        now: int = 0,
        checksum: Checksum = crc32c,
        decompressors: Decompressors | None = None,
    ) -> Self:
        """Open a data directory, recovering what a crash left; `None` keeps everything in memory.

        Raises:
            LockedError: Another broker owns the directory; says which.
            IncompatibleFormat: A newer version wrote it.
        """
        return cls(settings or StorageSettings())

    def announce(self, address: str) -> None:
        """Write `address` into the lock file, for those who find the directory taken."""

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> Topic:
        """Create a topic.

        Raises:
            BrokerError: 17 bad or colliding name, 36 exists, 37 bad number of partitions, 40 bad configuration,
                44 too many, 56 the disk refused.
        """
        self.check_create(name, partitions, config or {})
        topic = Topic(name, len(self.topics), [Log() for _ in range(partitions)], dict(config or {}))
        self.topics[name] = topic
        return topic

    def check_create(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """Raise what `create_topic` would raise (for `validate_only`)."""
        check_name(name)
        if name in self.topics:
            raise BrokerError(Code.TOPIC_ALREADY_EXISTS, f"topic {name!r} exists")
        if partitions < 1:
            raise BrokerError(Code.INVALID_PARTITIONS, f"{partitions} partitions")
        check_config(config)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and committed offsets.

        Raises:
            BrokerError: 3 unknown topic.
        """
        self.topic(name)
        del self.topics[name]

    def create_partitions(self, name: str, count: int, *, validate_only: bool = False) -> None:
        """Grow a topic to `count` partitions.

        Raises:
            BrokerError: 3 unknown topic, 37 not more than now, 44 too many, 56 the disk refused.
        """
        self.topic(name).partitions.append(Log())

    def alter_config(self, name: str, config: Mapping[str, str], *, validate_only: bool = False) -> None:
        """Replace a topic's own configuration.

        Raises:
            BrokerError: 3 unknown topic, 40 bad configuration, 56 the disk refused.
        """
        check_config(config)
        self.topic(name).config = dict(config)

    def config_of(self, name: str) -> dict[str, ConfigValue]:
        """Return every configuration key of a topic with its value and who set it.

        Raises:
            BrokerError: 3 unknown topic.
        """
        return {key: ConfigValue(value, "default") for key, value in DEFAULTS.items()}

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            BrokerError: 3 unknown topic.
        """
        try:
            return self.topics[name]
        except KeyError:
            raise BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name[:60]!r}") from None

    def log(self, name: str, partition: int) -> Log:
        """Return a partition's log.

        Raises:
            BrokerError: 3 unknown topic or partition.
        """
        partitions = self.topic(name).partitions
        if not 0 <= partition < len(partitions):
            raise BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name!r} has no partition {partition}")
        return partitions[partition]

    async def synced(self, items: Iterable[Log | OffsetStore | ProducerStore]) -> None:
        """Return when everything appended to `items` so far is durable (and readable).

        Call it in the same step as the appends, without awaiting anything in between. One fsync per file serves all
        who wait; under `durability="os"` and in memory there is nothing to wait for.

        Raises:
            BrokerError: 56: the disk refused; what was appended is taken back.
        """

    def maintain(self, now: int, active_groups: Collection[str] = ()) -> None:
        """Apply retention, compaction and expiry; `now` in ms. Groups with members keep their offsets."""

    def close(self) -> None:
        """Make everything durable, note the clean stop and release the directory."""


