"""Topics and their logs: found by name or id; created, grown, altered and removed step by step (see `steps.py`)."""

import base64
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from octopus.broker.catalog import TopicEntry, catalog_line, read_catalog, write_catalog
from octopus.broker.codes import BrokerError, Code
from octopus.broker.environment import Environment
from octopus.broker.files import sync_directory
from octopus.broker.log import Log
from octopus.broker.settings import StorageSettings
from octopus.broker.steps import Steps, Work
from octopus.broker.topics import DEFAULTS, Partitions, Topic, check_config, check_name, log_config, new_id

STEP = 16
"""Partitions that are removed, or looked after, in one step."""


class TopicStore:
    """The catalog, and one log a partition.

    Attributes:
        topics: All of them; changed by the methods below only.
        cluster_id: Names this data directory to clients.
    """

    cluster_id: str

    def __init__(self, path: Path | None, settings: StorageSettings, environment: Environment) -> None:
        self.topics: dict[str, Topic] = {}
        self._names: dict[UUID, str] = {}
        self._path = path
        self._settings = settings
        self._environment = environment
        self._next_folder = 0

    # ── finding ─────────────────────────────────────────────────────────────────────────────────────────────────────

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

    def logs(self) -> list[Log]:
        """Return the logs in use; those of partitions that were not asked for since the start are empty, and not among them."""
        return [log for topic in self.topics.values() for log in topic.partitions.opened.values()]

    # ── changing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def creating(self, name: str, partitions: int, config: Mapping[str, str]) -> Steps[Topic]:
        """Create a topic, durably. Its files come with its first records.

        Raises:
            BrokerError: 17 bad or colliding name, 36 exists, 37 bad number of partitions, 40 bad configuration,
                44 too many, 56 the disk refused.
        """
        self.check_create(name, partitions, config)
        topic = self._new_topic(TopicEntry(name, self._next_folder, partitions, dict(config), new_id()))
        self._next_folder += 1
        try:
            yield self._saving([*self.topics.values(), topic])
        except OSError as error:
            raise _refused(error) from error
        self._add(topic)
        return topic

    def check_free(self, name: str) -> None:
        """Refuse a name that no topic can have, or that one has.

        Raises:
            BrokerError: 17 bad or colliding name, 36 exists.
        """
        check_name(name)
        if name in self.topics:
            raise BrokerError(Code.TOPIC_ALREADY_EXISTS, f"The topic {name!r} exists already.")
        like = _metric_name(name)
        for other in self.topics:
            if _metric_name(other) == like:
                raise BrokerError(
                    Code.INVALID_TOPIC_EXCEPTION, f"The name {name!r} differs from {other!r} only in '.' and '_'."
                )

    def check_create(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """Raise the errors of `creating` (for `validate_only`)."""
        self.check_free(name)
        if partitions < 1:
            raise BrokerError(Code.INVALID_PARTITIONS, f"A topic cannot have {partitions} partitions.")
        check_config(config, self._environment.codecs)
        if len(self.topics) >= self._settings.max_topics:
            raise BrokerError(Code.POLICY_VIOLATION, f"There are {len(self.topics)} topics already.")
        self._check_room(partitions)

    def growing(self, name: str, count: int, *, validate_only: bool = False) -> Steps[None]:
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
        grown = replace(topic, partitions=topic.partitions.grown(count))
        try:
            yield self._saving(grown if each is topic else each for each in self.topics.values())
        except OSError as error:
            raise _refused(error) from error
        topic.partitions = grown.partitions

    def altering(self, name: str, config: Mapping[str, str], *, validate_only: bool = False) -> Steps[None]:
        """Replace a topic's own configuration, durably; then it applies.

        Raises:
            BrokerError: 3 unknown topic, 40 bad configuration, 56 the disk refused.
        """
        topic = self.topic(name)
        check_config(config, self._environment.codecs)
        if validate_only:
            return
        altered = replace(topic, config=dict(config))
        try:
            yield self._saving(altered if each is topic else each for each in self.topics.values())
        except OSError as error:
            raise _refused(error) from error
        topic.config = altered.config
        values = log_config(self._values_of(topic))
        for log in topic.partitions.opened.values():
            log.config = values

    def removing(self, name: str) -> Steps[Topic]:
        """Take a topic out of the catalog, durably, and end its use; its files stay, for `clearing`.

        Raises:
            BrokerError: 3 unknown topic, 56 the disk refused.
        """
        topic = self.topic(name)
        try:
            yield self._saving(each for each in self.topics.values() if each is not topic)
        except OSError as error:
            raise _refused(error) from error
        del self.topics[name], self._names[topic.id]
        for log in topic.partitions.opened.values():
            log.abandon()
        return topic

    def clearing(self, topic: Topic) -> Steps[None]:
        """Remove a topic's files; files that stay are removed at the next start."""
        opened = topic.partitions.opened
        used = [self._folder(topic) / str(number) for number, log in opened.items() if log.has_files]
        for start in range(0, len(used), STEP):
            yield partial(_remove, used[start : start + STEP])
            yield None
        if used:
            yield partial(_remove, [self._folder(topic)])

    # ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self, now: int) -> None:
        """Read the stored topics; `now` in ms since the epoch.

        Raises:
            ConfigurationError: The directory does not hold data this version can read.
            OSError: It cannot be read, or written where the catalog is new.
        """
        path = self._path
        catalog = None if path is None else read_catalog(path)
        if catalog is None:
            self.cluster_id = base64.urlsafe_b64encode(uuid4().bytes).decode()[:22]
            self._saving([])()
        if path is None:
            return
        clean = (path / "clean").exists()
        (path / "clean").unlink(missing_ok=True)
        (path / "topics").mkdir(mode=0o700, exist_ok=True)
        sync_directory(path, self._environment.faults)
        if catalog is None:
            return
        self.cluster_id, self._next_folder = catalog.cluster_id, catalog.next_folder
        kept = self._cleared(path / "topics", {entry.folder for entry in catalog.topics})
        for entry in catalog.topics:
            topic = self._new_topic(entry)
            self._add(topic)
            if entry.folder not in kept:
                continue
            for number in self._cleared(self._folder(topic), range(entry.partitions)):
                topic.partitions.opened[number] = self._open_log(topic.id, number, now=now, clean=clean)
            if not clean:
                sync_directory(self._folder(topic), self._environment.faults)
        if not clean:  # the names of partitions may be new, and their records are going to be seen
            sync_directory(path / "topics", self._environment.faults)
        if not catalog.has_ids:
            self._saving(self.topics.values())()  # before any client is told of one

    def _cleared(self, directory: Path, known: Collection[int]) -> list[int]:
        """Remove what the catalog does not know, because a crash interrupted a deletion; return the numbers of the rest."""
        names, kept = {str(number): number for number in known}, []
        for folder in directory.iterdir():
            if folder.name in names:
                kept.append(names[folder.name])
            else:
                shutil.rmtree(folder)
        return sorted(kept)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _new_topic(self, entry: TopicEntry) -> Topic:
        partitions = Partitions(entry.partitions, partial(self._open_log, entry.id))
        return Topic(entry.name, entry.id, entry.folder, partitions, entry.config)

    def _open_log(self, topic_id: UUID, number: int, *, now: int = 0, clean: bool = False) -> Log:
        topic = self.topic(self.name_of(topic_id))  # it may be gone, and then nothing may be made in its folder
        directory = None if self._path is None else self._folder(topic) / str(number)
        config = log_config(self._values_of(topic))
        return Log(directory, config, environment=self._environment, now=now, clean=clean)

    def _saving(self, topics: Iterable[Topic]) -> Work:
        """Return the work that writes the catalog as it is now, with these topics."""
        if self._path is None:
            return _nothing
        line = catalog_line(self.cluster_id, self._next_folder, topics)
        return partial(write_catalog, self._path, line, self._environment)

    def _folder(self, topic: Topic) -> Path:
        assert self._path is not None
        return self._path / "topics" / str(topic.folder)

    # ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, topic: Topic) -> None:
        self.topics[topic.name] = topic
        self._names[topic.id] = topic.name

    def _check_room(self, partitions: int) -> None:
        taken = sum(len(topic.partitions) for topic in self.topics.values())
        if taken + partitions > self._settings.max_partitions:
            raise BrokerError(
                Code.POLICY_VIOLATION, f"There would be more than {self._settings.max_partitions} partitions."
            )

    def _values_of(self, topic: Topic) -> dict[str, str]:
        return {**DEFAULTS, **self._settings.topic_defaults, **topic.config}


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _nothing() -> None:
    """Be the work where nothing is on disk."""


def _metric_name(name: str) -> str:
    return name.replace(".", "_")


def _refused(error: OSError) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")
