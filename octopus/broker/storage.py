"""A data directory (or memory): the catalog of topics, their logs, committed offsets, producers.

lock                        who owns the directory
catalog                     topics, replaced as a whole
clean                       the last owner stopped in order; removed at start
offsets, producers          journals
topics/<folder>/<number>/   one folder a partition; clients' names never become paths
"""

import base64
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Self
from uuid import UUID, uuid4

from octopus.broker.batch import Decompressors
from octopus.broker.catalog import Catalog, read_catalog, write_catalog
from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.chores import Compactions, attempt
from octopus.broker.codes import BrokerError, Code
from octopus.broker.durability import Durable
from octopus.broker.environment import Environment
from octopus.broker.faults import Faults
from octopus.broker.files import sync_directory
from octopus.broker.lock import DirectoryLock
from octopus.broker.log import Log
from octopus.broker.offsets import OffsetStore
from octopus.broker.producers import ProducerStore
from octopus.broker.topics import DEFAULTS, ConfigValue, Topic, check_config, check_name, log_config, new_id
from octopus.logs import get_logger

_MAXIMUM_EPOCH = 2**15 - 1

_log = get_logger(__name__)


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
    """What a broker keeps. One thread (an event loop's) calls everything here. Made by `Storage.open`.

    Attributes:
        settings: As given.
        topics: The catalog; changed by the methods below only.
        offsets: Committed offsets.
        producers: Producer ids and transactions.
        cluster_id: Names this data directory to clients; stays the same.
        faults: Disk faults on demand, for tests.
    """

    topics: dict[str, Topic]
    _names: dict[UUID, str]
    offsets: OffsetStore
    producers: ProducerStore
    cluster_id: str

    def __init__(self, path: Path | None, settings: StorageSettings, environment: Environment) -> None:
        self.settings = settings
        self.faults = environment.faults
        self._path = path
        self._environment = environment
        self._lock = None if path is None else DirectoryLock(path)
        self._compactions = Compactions()

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        settings: StorageSettings | None = None,
        *,
        now: int = 0,
        checksum: Checksum = crc32c,
        decompressors: Decompressors | None = None,
        faults: Faults | None = None,
    ) -> Self:
        """Open a data directory, making it at need and recovering what a crash left; `None` keeps everything in memory.

        Transactions that no transactional id accounts for are aborted; the others wait for their coordinator.

        Args:
            path: The directory; only its owner may look into it.
            settings: How it is kept.
            now: ms since the epoch.
            checksum: CRC-32C, if a compiled one is at hand.
            decompressors: Codec number → function; the standard library has gzip only.
            faults: Disk faults on demand.

        Raises:
            ConfigurationError: Another broker owns the directory (`LockedError` says which), or it does not hold data this
                version can read (`IncompatibleFormat`).
            OSError: The directory cannot be read.
        """
        settings = settings or StorageSettings()
        check_config(settings.topic_defaults)
        environment = Environment(
            checksum=checksum,
            decompressors=decompressors or {},
            faults=faults or Faults(),
            is_durable=path is not None and settings.durability == "fsync",
        )
        if path is not None:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        self = cls(path, settings, environment)
        try:
            self._recover(now)
        except BaseException:
            self._release()
            raise
        return self

    def announce(self, address: str) -> None:
        """Write `address` (`host:port`) into the lock file, for those who find the directory taken."""
        if self._lock is not None:
            self._lock.announce(address)

    @property
    def last_address(self) -> str | None:
        """Where the directory's broker listened the last time; None in memory, or the first time."""
        return None if self._lock is None else self._lock.last_address

    def note_stop(self) -> None:
        """Take it that the broker ends because somebody asked it to; its directory will say so."""
        if self._lock is not None:
            self._lock.was_stopped = True

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> Topic:
        """Create a topic, durably.

        Raises:
            BrokerError: 17 bad or colliding name, 36 exists, 37 bad number of partitions, 40 bad configuration,
                44 too many, 56 the disk refused.
        """
        self.check_create(name, partitions, config or {})
        topic = Topic(name, new_id(), self._next_folder, config=dict(config or {}))
        self._next_folder += 1
        try:
            self._add_partitions(topic, partitions)
            self._save_catalog([*self.topics.values(), topic])
        except OSError as error:
            self._remove_folder(topic)
            raise _refused(error) from error
        self._add(topic)
        return topic

    def check_create(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """Raise what `create_topic` would raise (for `validate_only`)."""
        check_name(name)
        if name in self.topics:
            raise BrokerError(Code.TOPIC_ALREADY_EXISTS, f"The topic {name!r} exists already.")
        like = _metric_name(name)
        for other in self.topics:
            if _metric_name(other) == like:
                raise BrokerError(
                    Code.INVALID_TOPIC_EXCEPTION, f"The name {name!r} differs from {other!r} only in '.' and '_'."
                )
        if partitions < 1:
            raise BrokerError(Code.INVALID_PARTITIONS, f"A topic cannot have {partitions} partitions.")
        check_config(config)
        if len(self.topics) >= self.settings.max_topics:
            raise BrokerError(Code.POLICY_VIOLATION, f"There are {len(self.topics)} topics already.")
        self._check_room(partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and committed offsets.

        Raises:
            BrokerError: 3 unknown topic, 56 the disk refused.
        """
        topic = self.topic(name)
        try:
            self._save_catalog([each for each in self.topics.values() if each is not topic])
        except OSError as error:
            raise _refused(error) from error
        del self.topics[name], self._names[topic.id]
        for log in topic.partitions:
            log.delete()
        self._remove_folder(topic)
        # Durable at once: a topic of this name that is made now must not inherit a place after a power cut.
        self.producers.forget_topic(name)
        self.offsets.keep_topics(self.topics)
        self._flush_journals()

    def create_partitions(self, name: str, count: int, *, validate_only: bool = False) -> None:
        """Grow a topic to `count` partitions, durably.

        Raises:
            BrokerError: 3 unknown topic, 37 not more than now, 44 too many, 56 the disk refused.
        """
        topic = self.topic(name)
        before = len(topic.partitions)
        if count <= before:
            raise BrokerError(Code.INVALID_PARTITIONS, f"The topic {name!r} has {before} partitions; it can only grow.")
        self._check_room(count - before)
        if validate_only:
            return
        try:
            self._add_partitions(topic, count)
            self._save_catalog(self.topics.values())
        except OSError as error:
            for log in topic.partitions[before:]:
                log.delete()
            del topic.partitions[before:]
            raise _refused(error) from error

    def alter_config(self, name: str, config: Mapping[str, str], *, validate_only: bool = False) -> None:
        """Replace a topic's own configuration, durably; it applies at once.

        Raises:
            BrokerError: 3 unknown topic, 40 bad configuration, 56 the disk refused.
        """
        topic = self.topic(name)
        check_config(config)
        if validate_only:
            return
        before, topic.config = topic.config, dict(config)
        try:
            self._save_catalog(self.topics.values())
        except OSError as error:
            topic.config = before
            raise _refused(error) from error
        for log in topic.partitions:
            log.config = log_config(self._values_of(topic))

    def config_of(self, name: str) -> dict[str, ConfigValue]:
        """Return every configuration key of a topic with its value and who set it.

        Raises:
            BrokerError: 3 unknown topic.
        """
        return self.config_with(self.topic(name).config)

    def config_with(self, config: Mapping[str, str]) -> dict[str, ConfigValue]:
        """Return every configuration key as it is for a topic that sets `config`."""
        defaults = self.settings.topic_defaults
        values = {}
        for key, value in DEFAULTS.items():
            if key in config:
                values[key] = ConfigValue(config[key], "topic")
            elif key in defaults:
                values[key] = ConfigValue(defaults[key], "broker")
            else:
                values[key] = ConfigValue(value, "default")
        return values

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            BrokerError: 3 unknown topic.
        """
        try:
            return self.topics[name]
        except KeyError:
            raise BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION, f"There is no topic {name[:60]!r}.") from None

    def name_of(self, topic_id: UUID) -> str:
        """Return the name of the topic with this id.

        Raises:
            BrokerError: 100 unknown id: there never was such a topic, or it was deleted.
        """
        try:
            return self._names[topic_id]
        except KeyError:
            raise BrokerError(Code.UNKNOWN_TOPIC_ID, f"There is no topic with id {topic_id}.") from None

    def log(self, name: str, partition: int) -> Log:
        """Return a partition's log.

        Raises:
            BrokerError: 3 unknown topic or partition.
        """
        partitions = self.topic(name).partitions
        if not 0 <= partition < len(partitions):
            raise BrokerError(
                Code.UNKNOWN_TOPIC_OR_PARTITION, f"The topic {name!r} has {len(partitions)} partitions, no {partition}."
            )
        return partitions[partition]

    async def synced(self, items: Iterable[Log | OffsetStore | ProducerStore]) -> None:
        """Return when everything appended to `items` so far is durable (and readable).

        Call it in the same step as the appends, without awaiting anything in between. One fsync per file serves all
        who wait; under `durability="os"` and in memory there is nothing to wait for.

        Raises:
            BrokerError: 56: the disk refused; what was appended is taken back.
        """
        if self._environment.is_durable:
            await self._environment.commit.synced(map(_durable, items))

    def flush(self) -> None:
        """Make everything durable, waiting for the disk; for use without an event loop.

        Raises:
            BrokerError: 56 the disk refused.
        """
        for log in self._logs():
            self._environment.commit.flush(log)
        self._flush_journals()

    def maintain(self, now: int, active_groups: Collection[str] = ()) -> None:
        """Apply retention, compaction and expiry; `now` in ms. Groups with members keep their offsets.

        In an event loop compactions run in a thread, one a log, and show when they are done. Nothing is raised: what the
        disk refuses is logged and tried again the next time.
        """
        for log in self._logs():
            attempt(partial(log.retain, now), "retention")
            log.expire_producers(now - self.settings.producer_expiry_ms)
            attempt(partial(self._compactions.start, log, now), "compaction")
        before = now - self.settings.offsets_retention_ms
        attempt(lambda: self.offsets.expire(before, active_groups), "the expiry of offsets")

    def close(self) -> None:
        """Make everything durable, note the clean stop and release the directory.

        Raises:
            BrokerError: 56 the disk refused something; the next start recovers what was acknowledged.
        """
        failure: BrokerError | None = None
        for close in [
            *(log.close for log in self._logs()),
            self.offsets.journal.close,
            self.producers.journal.close,
            self._environment.commit.close,
        ]:
            try:
                close()
            except BrokerError as error:
                failure = error
        try:
            if failure is not None:
                raise failure
            if self._path is not None:
                (self._path / "clean").touch(mode=0o600)
                sync_directory(self._path, self.faults)
        except OSError as error:
            raise _refused(error) from error
        finally:
            self._release()

    def _recover(self, now: int) -> None:
        path, environment = self._path, self._environment
        catalog = None if path is None else read_catalog(path)
        clean = False
        if path is not None:
            clean = (path / "clean").exists()
            (path / "clean").unlink(missing_ok=True)
            sync_directory(path, self.faults)
        self.topics, self._names = {}, {}
        self._next_folder = catalog.next_folder if catalog else 0
        self.cluster_id = catalog.cluster_id if catalog else base64.urlsafe_b64encode(uuid4().bytes).decode()[:22]
        if catalog is None:
            self._save_catalog([])
        else:
            self._recover_topics(catalog, now, clean)
            if not catalog.is_current:
                self._save_catalog(self.topics.values())  # before anybody is told of an id that was missing
        self.offsets = OffsetStore(path and path / "offsets", environment)
        self.producers = ProducerStore(path and path / "producers", environment)
        self.producers.skip_to(1 + max((log.largest_producer_id for log in self._logs()), default=-1))
        self._abort_orphans(now)
        # A crash may have come between a topic's deletion and this.
        attempt(lambda: self.offsets.keep_topics(self.topics), "forgetting the offsets of deleted topics")

    def _recover_topics(self, catalog: Catalog, now: int, clean: bool) -> None:
        known = {str(entry.folder) for entry in catalog.topics}
        for folder in self._topics_path.glob("*"):
            if folder.name not in known:
                shutil.rmtree(folder)  # a creation or deletion that a crash interrupted
        for entry in catalog.topics:
            topic = Topic(entry.name, entry.id, entry.folder, config=entry.config)
            self._add(topic)
            for number in range(entry.partitions):
                topic.partitions.append(self._open_log(topic, number, now=now, clean=clean))

    def _abort_orphans(self, now: int) -> None:
        """Abort open transactions that no coordinator will end."""
        owned = {
            (state.producer_id, *partition)
            for state in self.producers.transactions()
            if state.phase in {"ongoing", "prepare_commit", "prepare_abort"}
            for partition in state.partitions
        }
        for topic in self.topics.values():
            for number, log in enumerate(topic.partitions):
                for producer_id, epoch in log.open_transactions.items():
                    if (producer_id, topic.name, number) not in owned:
                        _log.warning(
                            "%s-%d: aborting the transaction of producer %d, open since the last stop",
                            topic.name,
                            number,
                            producer_id,
                        )
                        # With the next epoch, so that its producer cannot go on as if nothing had happened.
                        abort = partial(log.append_control, producer_id, min(epoch + 1, _MAXIMUM_EPOCH), False, now)
                        attempt(abort, "aborting a transaction")
                attempt(log.flush, "recovery")

    def _add_partitions(self, topic: Topic, count: int) -> None:
        if self._path is not None:
            folder = self._topics_path / str(topic.folder)
            for directory in (self._topics_path, folder):
                directory.mkdir(mode=0o700, exist_ok=True)
            for number in range(len(topic.partitions), count):
                (folder / str(number)).mkdir(mode=0o700, exist_ok=True)
            for directory in (folder, self._topics_path, self._path):
                sync_directory(directory, self.faults)
        for number in range(len(topic.partitions), count):
            topic.partitions.append(self._open_log(topic, number))

    def _open_log(self, topic: Topic, number: int, *, now: int = 0, clean: bool = False) -> Log:
        directory = None if self._path is None else self._topics_path / str(topic.folder) / str(number)
        config = log_config(self._values_of(topic))
        return Log(directory, config, environment=self._environment, now=now, clean=clean)

    def _check_room(self, partitions: int) -> None:
        if sum(1 for _ in self._logs()) + partitions > self.settings.max_partitions:
            raise BrokerError(
                Code.POLICY_VIOLATION, f"There would be more than {self.settings.max_partitions} partitions."
            )

    def _values_of(self, topic: Topic) -> dict[str, str]:
        return {**DEFAULTS, **self.settings.topic_defaults, **topic.config}

    def _save_catalog(self, topics: Iterable[Topic]) -> None:
        if self._path is not None:
            write_catalog(self._path, self.cluster_id, self._next_folder, topics, self._environment)

    def _flush_journals(self) -> None:
        for journal in (self.offsets.journal, self.producers.journal):
            self._environment.commit.flush(journal)

    def _remove_folder(self, topic: Topic) -> None:
        if self._path is not None:
            shutil.rmtree(self._topics_path / str(topic.folder), ignore_errors=True)

    def _add(self, topic: Topic) -> None:
        self.topics[topic.name] = topic
        self._names[topic.id] = topic.name

    def _logs(self) -> Iterable[Log]:
        return [log for topic in self.topics.values() for log in topic.partitions]

    @property
    def _topics_path(self) -> Path:
        assert self._path is not None
        return self._path / "topics"

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _durable(item: Log | OffsetStore | ProducerStore) -> Durable:
    return item if isinstance(item, Log) else item.journal


def _metric_name(name: str) -> str:
    return name.replace(".", "_")


def _refused(error: OSError) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")
