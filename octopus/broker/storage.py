"""A data directory (or memory): the catalog of topics, their logs, committed offsets, producers.

lock                        the owner of the directory
catalog                     topics, replaced as a whole
clean                       the last owner stopped in order; removed at start
offsets, producers          journals
topics/<folder>/<number>/   a partition with records; clients' names never become paths
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Self, TypeVar
from uuid import UUID

from octopus.broker.catalog import read_catalog
from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.chores import Compactions, attempt
from octopus.broker.codecs import Codecs
from octopus.broker.codes import BrokerError, Code
from octopus.broker.durability import Durable
from octopus.broker.environment import Environment
from octopus.broker.faults import Faults
from octopus.broker.files import sync_directory
from octopus.broker.lock import DirectoryLock
from octopus.broker.log import Log
from octopus.broker.offsets import OffsetStore
from octopus.broker.producers import ProducerStore
from octopus.broker.settings import StorageSettings
from octopus.broker.steps import Steps, Turns, at_once
from octopus.broker.topic_store import STEP, TopicStore
from octopus.broker.topics import ConfigValue, Topic, check_config, described
from octopus.errors import ConfigurationError
from octopus.logs import get_logger

T = TypeVar("T")

_MAXIMUM_EPOCH = 2**15 - 1

_log = get_logger(__name__)


class Storage:
    """The data of a broker. One thread (an event loop's) calls everything here. Made by `Storage.open`.

    Attributes:
        settings: As given.
        topic_store: Topics and their logs.
        offsets: Committed offsets.
        producers: Producer ids and transactions.
        faults: Disk faults on demand, for tests.
    """

    offsets: OffsetStore
    producers: ProducerStore

    def __init__(self, path: Path | None, settings: StorageSettings, environment: Environment) -> None:
        self.settings = settings
        self.faults = environment.faults
        self._path = path
        self._environment = environment
        self._lock = None if path is None else DirectoryLock(path)
        self._compactions = Compactions()
        self._turns = Turns()
        self.topic_store = TopicStore(path, settings, environment)

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        settings: StorageSettings | None = None,
        *,
        now: int = 0,
        checksum: Checksum = crc32c,
        codecs: Codecs | None = None,
        faults: Faults | None = None,
    ) -> Self:
        """Open a data directory, making it at need and recovering from a crash; `None` keeps everything in memory.

        Transactions that no transactional id accounts for are aborted; the others wait for their coordinator.

        Args:
            path: The directory; only its owner may look into it.
            settings: How it is kept.
            now: ms since the epoch.
            checksum: CRC-32C, if a compiled one is at hand.
            codecs: Pack and unpack records; gzip is built in.
            faults: Disk faults on demand.

        Raises:
            ConfigurationError: Another broker owns the directory (`LockedError` says which), or it does not hold data this
                version can read (`IncompatibleFormat`).
            OSError: The directory cannot be read.
        """
        settings = settings or StorageSettings()
        check_config(settings.topic_defaults, codecs or {})
        environment = Environment(
            checksum=checksum,
            codecs=codecs or {},
            faults=faults or Faults(),
            is_durable=path is not None and settings.durability == "fsync",
        )
        if path is not None:
            read_catalog(path)  # before any file of another program is changed
            _make(path)
            path.chmod(0o700)
        self = cls(path, settings, environment)
        try:
            self._recover(now)
        except BaseException:
            self._release()
            raise
        return self

    def announce(self, address: str) -> None:
        """Write `address` (`host:port`) into the lock file, for processes that find the directory taken."""
        if self._lock is not None:
            self._lock.announce(address)

    @property
    def last_address(self) -> str | None:
        """Where the directory's broker listened the last time; None in memory, or the first time."""
        return None if self._lock is None else self._lock.last_address

    def note_stop(self) -> None:
        """Record that the broker was asked to end; its directory will say so."""
        if self._lock is not None:
            self._lock.was_stopped = True

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> Topic:
        """Create a topic here and now; see `TopicStore.creating`."""
        return at_once(self.topic_store.creating(name, partitions, config or {}))

    def delete_topic(self, name: str) -> None:
        """Delete a topic here and now; see `deleting`."""
        at_once(self.deleting(name))

    def create_partitions(self, name: str, count: int, *, validate_only: bool = False) -> None:
        """Grow a topic here and now; see `TopicStore.growing`."""
        at_once(self.topic_store.growing(name, count, validate_only=validate_only))

    def alter_config(self, name: str, config: Mapping[str, str], *, validate_only: bool = False) -> None:
        """Replace a topic's own configuration here and now; see `TopicStore.altering`."""
        at_once(self.topic_store.altering(name, config, validate_only=validate_only))

    def deleting(self, name: str) -> Steps[Topic]:
        """Delete a topic with its records and committed offsets, step by step.

        Raises:
            BrokerError: 3 unknown topic, 56 the disk refused.
        """
        topic = yield from self.topic_store.removing(name)
        # Durable at once: a topic of this name that is made now must not inherit a place after a power cut.
        self.producers.forget_topic(name)
        self.offsets.keep_topics(self.topics)
        self._flush_journals()
        yield None
        yield from self.topic_store.clearing(topic)
        return topic

    async def made(self, steps: Steps[T]) -> T:
        """Make a change without holding up the event loop; others are made in turn.

        Raises:
            BrokerError: The error of the change; 56 the broker stops.
        """
        return await self._turns.make(steps)

    async def end_changes(self) -> None:
        """Let no change go on; to be called in the event loop before `close`."""
        await self._turns.end()

    @property
    def topics(self) -> Mapping[str, Topic]:
        """The catalog; changed by the methods above only."""
        return self.topic_store.topics

    @property
    def cluster_id(self) -> str:
        """Names this data directory to clients; stays the same."""
        return self.topic_store.cluster_id

    def config_of(self, name: str) -> dict[str, ConfigValue]:
        """Return every configuration key of a topic with its value and its source.

        Raises:
            BrokerError: 3 unknown topic.
        """
        return self.config_with(self.topic(name).config)

    def config_with(self, config: Mapping[str, str]) -> dict[str, ConfigValue]:
        """Return every configuration key as it is for a topic that sets `config`."""
        return described(config, self.settings.topic_defaults)

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            BrokerError: 3 unknown topic.
        """
        return self.topic_store.topic(name)

    def name_of(self, topic_id: UUID) -> str:
        """Return the name of the topic with this id.

        Raises:
            BrokerError: 100 unknown id: there never was such a topic, or it was deleted.
        """
        return self.topic_store.name_of(topic_id)

    def log(self, name: str, partition: int) -> Log:
        """Return a partition's log.

        Raises:
            BrokerError: 3 unknown topic or partition.
        """
        return self.topic_store.log(name, partition)

    async def synced(self, items: Iterable[Log | OffsetStore | ProducerStore]) -> None:
        """Return when everything appended to `items` so far is durable (and readable).

        Call it in the same step as the appends, without an `await` in between. One fsync per file serves all waiting
        requests; under `durability="os"` and in memory it returns at once.

        Raises:
            BrokerError: 56: the disk refused; the appended records are taken back.
        """
        if self._environment.is_durable:
            await self._environment.commit.synced(map(_durable, items))

    def flush(self) -> None:
        """Make everything durable, waiting for the disk; for use without an event loop.

        Raises:
            BrokerError: 56 the disk refused.
        """
        for log in self.topic_store.logs():
            self._environment.commit.flush(log)
        self._flush_journals()

    def maintain(self, now: int, active_groups: Collection[str] = ()) -> None:
        """Do the upkeep here and now; see `maintaining`."""
        at_once(self.maintaining(now, active_groups))

    def maintaining(self, now: int, active_groups: Collection[str] = ()) -> Steps[None]:
        """Apply retention, compaction and expiry; `now` in ms. Groups with members keep their offsets.

        In an event loop compactions run in a thread, one a log, and show when they are done. Nothing is raised: a refusal
        of the disk is logged, and the chore tried again the next time.
        """
        for number, log in enumerate(self.topic_store.logs(), 1):
            if not log.is_gone:
                attempt(partial(log.retain, now), "retention")
                log.expire_producers(now - self.settings.producer_expiry_ms)
                attempt(partial(self._compactions.start, log, now), "compaction")
            if number % STEP == 0:
                yield None
        before = now - self.settings.offsets_retention_ms
        attempt(lambda: self.offsets.expire(before, active_groups), "the expiry of offsets")

    def close(self) -> None:
        """Make everything durable, note the clean stop and release the directory.

        Raises:
            BrokerError: 56 the disk refused a write; the next start recovers the acknowledged records.
        """
        failure: BrokerError | None = None
        for close in [
            *(log.close for log in self.topic_store.logs()),
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
        self.topic_store.recover(now)
        self.offsets = OffsetStore(path and path / "offsets", environment)
        self.producers = ProducerStore(path and path / "producers", environment)
        self.producers.skip_to(1 + max((log.largest_producer_id for log in self.topic_store.logs()), default=-1))
        self._abort_orphans(now)
        # A crash may have come between a topic's deletion and this.
        attempt(lambda: self.offsets.keep_topics(self.topics), "forgetting the offsets of deleted topics")

    def _abort_orphans(self, now: int) -> None:
        """Abort open transactions that no coordinator will end."""
        owned = {
            (state.producer_id, *partition)
            for state in self.producers.transactions()
            if state.phase in {"ongoing", "prepare_commit", "prepare_abort"}
            for partition in state.partitions
        }
        for topic in self.topics.values():
            for number, log in topic.partitions.opened.items():
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

    def _flush_journals(self) -> None:
        for journal in (self.offsets.journal, self.producers.journal):
            self._environment.commit.flush(journal)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _make(directory: Path) -> None:
    """Make the directory that keeps records, or say why there can be none."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next(path for path in (directory, *directory.parents) if path.exists())
        raise ConfigurationError(
            f"Records cannot be kept in {str(directory)!r}: {str(file)!r} is a file, not a directory. Name another directory."
        ) from error
    except PermissionError as error:
        raise ConfigurationError(
            f"Records cannot be kept in {str(directory)!r}: this user may not make it. Name another directory."
        ) from error


def _durable(item: Log | OffsetStore | ProducerStore) -> Durable:
    return item if isinstance(item, Log) else item.journal


def _refused(error: OSError) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")
