"""Topics and their logs: found by name or id; created, grown, altered and removed step by step (see `steps.py`)."""

import base64
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from octopus.broker.catalog import catalog_line, read_catalog, write_catalog
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.environment import Environment
from octopus.broker.files import sync_directory
from octopus.broker.log import Log
from octopus.broker.log.recovery import make_empty
from octopus.broker.steps import Steps, Work
from octopus.broker.topics import DEFAULTS, Topic, check_config, check_name, log_config, new_id

if TYPE_CHECKING:
    from octopus.broker.storage import StorageSettings

STEP = 16
"""Partitions that are made or removed in one step."""


class TopicStore:
    """The catalog, and one log a partition.

    Attributes:
        topics: All of them; changed by the methods below only.
        cluster_id: Names this data directory to clients.
    """

    cluster_id: str

    def __init__(self, path: Path | None, settings: "StorageSettings", environment: Environment) -> None:
        self.topics: dict[str, Topic] = {}
        self._names: dict[UUID, str] = {}
        self._path = path
        self._settings = settings
        self._environment = environment
        self._next_folder = 0
        self._changing: dict[str, int] = {}  # a topic that is created or grown → the partitions it will have more

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
        """Return the logs of all partitions."""
        return [log for topic in self.topics.values() for log in topic.partitions]

    # ── changing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def creating(self, name: str, partitions: int, config: Mapping[str, str]) -> Steps[Topic]:
        """Create a topic, durably. No client sees it before it is whole.

        Raises:
            BrokerError: 17 bad or colliding name, 36 exists, 37 bad number of partitions, 40 bad configuration,
                44 too many, 56 the disk refused.
        """
        self.check_create(name, partitions, config)
        topic = Topic(name, new_id(), self._next_folder, config=dict(config))
        self._next_folder += 1
        with self._reserved(name, partitions):
            try:
                if self._path is not None:
                    yield partial(self._make_folder, topic)
                topic.partitions = yield from self._new_logs(topic, 0, partitions)
                yield self._saving([*self.topics.values(), topic])
            except OSError as error:
                yield from self.clearing(topic)
                raise _refused(error) from error
        self._add(topic)
        return topic

    def check_free(self, name: str) -> None:
        """Refuse a name that no topic can have, or that one has.

        Raises:
            BrokerError: 17 bad or colliding name, 36 exists.
        """
        check_name(name)
        if name in self.topics or name in self._changing:
            raise BrokerError(Code.TOPIC_ALREADY_EXISTS, f"The topic {name!r} exists already.")
        like = _metric_name(name)
        for other in (*self.topics, *self._changing):
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
            BrokerError: 3 unknown topic, 37 not more than now, or it grows already, 44 too many, 56 the disk refused.
        """
        topic = self.topic(name)
        before = len(topic.partitions)
        if count <= before:
            raise BrokerError(Code.INVALID_PARTITIONS, f"The topic {name!r} has {before} partitions; it can only grow.")
        require(name not in self._changing, Code.INVALID_PARTITIONS, f"The topic {name!r} grows already.")
        self._check_room(count - before)
        if validate_only:
            return
        with self._reserved(name, count - before):
            try:
                added = yield from self._new_logs(topic, before, count)
                if self.topics.get(name) is not topic:
                    raise BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION, f"The topic {name!r} was deleted.")
                whole = replace(topic, partitions=[*topic.partitions, *added])
                yield self._saving(whole if each is topic else each for each in self.topics.values())
            except OSError as error:
                yield from self._clearing(topic, range(before, count))
                raise _refused(error) from error
        for log in added:
            log.config = log_config(self._values_of(topic))  # it may have been altered meanwhile
        topic.partitions.extend(added)

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
        for log in topic.partitions:
            log.config = log_config(self._values_of(topic))

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
        for log in topic.partitions:
            log.abandon()
        return topic

    def clearing(self, topic: Topic) -> Steps[None]:
        """Remove a topic's files; files that stay are removed at the next start."""
        yield from self._clearing(topic, range(len(topic.partitions)))
        if self._path is not None:
            yield partial(shutil.rmtree, self._folder(topic), ignore_errors=True)

    # ── recovery ────────────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self, now: int) -> None:
        """Read the stored topics; `now` in ms since the epoch.

        Raises:
            ConfigurationError: The directory does not hold data this version can read.
            OSError: It cannot be read, or written where the catalog is new.
        """
        path, catalog, clean = self._path, None, False
        if path is not None:
            catalog = read_catalog(path)
            clean = (path / "clean").exists()
            (path / "clean").unlink(missing_ok=True)
            sync_directory(path, self._environment.faults)
        if catalog is None:
            self.cluster_id = base64.urlsafe_b64encode(uuid4().bytes).decode()[:22]
            self._saving([])()
            return
        self.cluster_id, self._next_folder = catalog.cluster_id, catalog.next_folder
        assert path is not None
        known = {str(entry.folder) for entry in catalog.topics}
        for folder in (path / "topics").glob("*"):
            if folder.name not in known:
                shutil.rmtree(folder)  # a creation or deletion that a crash interrupted
        for entry in catalog.topics:
            topic = Topic(entry.name, entry.id, entry.folder, config=entry.config)
            self._add(topic)
            for number in range(entry.partitions):
                topic.partitions.append(self._open_log(topic, number, now=now, clean=clean))
            self._clear_at_once(topic)
        if not catalog.is_current:
            self._saving(self.topics.values())()  # before any client is told of an id that was missing

    def _clear_at_once(self, topic: Topic) -> None:
        """Remove partitions that a topic was to get when the broker ended."""
        known = {str(number) for number in range(len(topic.partitions))}
        for folder in self._folder(topic).glob("*"):
            if folder.name not in known:
                shutil.rmtree(folder)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _new_logs(self, topic: Topic, first: int, end: int) -> Steps[list[Log]]:
        logs: list[Log] = []
        for start in range(first, end, STEP):
            numbers = range(start, min(start + STEP, end))
            if self._path is not None:
                yield partial(self._make_partitions, topic, numbers)
            for number in numbers:
                yield None  # for each: this part is done in the event loop
                logs.append(self._open_log(topic, number, is_new=True))
        return logs

    def _make_folder(self, topic: Topic) -> None:
        folder = self._folder(topic)
        for directory in (folder.parent, folder):
            directory.mkdir(mode=0o700, exist_ok=True)
        for directory in (folder.parent, folder.parent.parent):
            sync_directory(directory, self._environment.faults)

    def _make_partitions(self, topic: Topic, numbers: Iterable[int]) -> None:
        folder = self._folder(topic)
        make_empty([folder / str(number) for number in numbers], self._environment.faults)
        sync_directory(folder, self._environment.faults)

    def _clearing(self, topic: Topic, numbers: range) -> Steps[None]:
        for start in range(0, len(numbers) if self._path is not None else 0, STEP):
            yield partial(self._remove_partitions, topic, numbers[start : start + STEP])
            yield None

    def _remove_partitions(self, topic: Topic, numbers: Iterable[int]) -> None:
        for number in numbers:
            shutil.rmtree(self._folder(topic) / str(number), ignore_errors=True)

    def _open_log(self, topic: Topic, number: int, *, now: int = 0, clean: bool = False, is_new: bool = False) -> Log:
        directory = None if self._path is None else self._folder(topic) / str(number)
        config = log_config(self._values_of(topic))
        return Log(directory, config, environment=self._environment, now=now, clean=clean, is_new=is_new)

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

    @contextmanager
    def _reserved(self, name: str, partitions: int) -> Iterator[None]:
        self._changing[name] = partitions
        try:
            yield
        finally:
            del self._changing[name]

    def _check_room(self, partitions: int) -> None:
        taken = sum(len(topic.partitions) for topic in self.topics.values()) + sum(self._changing.values())
        if taken + partitions > self._settings.max_partitions:
            raise BrokerError(
                Code.POLICY_VIOLATION, f"There would be more than {self._settings.max_partitions} partitions."
            )

    def _values_of(self, topic: Topic) -> dict[str, str]:
        return {**DEFAULTS, **self._settings.topic_defaults, **topic.config}


def _nothing() -> None:
    """Be the work where nothing is on disk."""


def _metric_name(name: str) -> str:
    return name.replace(".", "_")


def _refused(error: OSError) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")
