"""The catalog: which topics there are, with how many partitions and which configuration; one small file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from octopus.broker.environment import Environment
from octopus.broker.files import open_line, replace_file, sealed_line
from octopus.broker.topics import Topic, new_id
from octopus.errors import ConfigurationError

FORMAT = 3
"""1 had no topic ids; in 2 a partition without records had a folder, too."""


class IncompatibleFormat(ConfigurationError):
    """The directory holds something else, or data that a newer version wrote."""


class TopicEntry(NamedTuple):
    """A topic as the catalog knows it."""

    name: str
    folder: int
    partitions: int
    config: dict[str, str]
    id: UUID


class Catalog(NamedTuple):
    """The catalog's content.

    Attributes:
        cluster_id: Names the data directory to clients.
        next_folder: The folder of the next topic; none is used twice.
        topics: All topics.
        has_ids: Whether the topics' ids are written in it; otherwise it has to be written again.
    """

    cluster_id: str
    next_folder: int
    topics: list[TopicEntry]
    has_ids: bool


def _check_directory(directory: Path) -> None:
    """Refuse a directory that holds something else; nothing in it, nor its mode, was changed by then.

    Raises:
        IncompatibleFormat: It is neither empty nor a broker's.
        OSError: It cannot be read.
    """
    if directory.is_dir() and not (directory / "catalog").exists():
        strange = {entry.name for entry in directory.iterdir()} - {"lock", "catalog.temp"}
        if strange:
            raise IncompatibleFormat(
                f"The directory {str(directory)!r} is not empty and no broker's data (it holds {min(strange)!r}). Name another."
            )


def read_catalog(directory: Path) -> Catalog | None:
    """Return the catalog; None when the directory is new.

    Raises:
        IncompatibleFormat: It was written by a newer version, is damaged, or the directory holds something else.
    """
    _check_directory(directory)
    path = directory / "catalog"
    if not path.exists():
        return None
    content = open_line(path.read_bytes())
    if content is None:
        raise IncompatibleFormat(
            f"The catalog {str(path)!r} is damaged, so the folders under 'topics' cannot be told apart. Restore it from a copy."
        )
    values: dict[str, Any] = json.loads(content)
    if values["format"] > FORMAT:
        raise IncompatibleFormat(
            f"The directory {str(directory)!r} has format {values['format']}; this version reads up to {FORMAT}. Use a newer one."
        )
    topics = [_entry(*entry) for entry in values["topics"]]
    return Catalog(values["cluster_id"], values["next_id"], topics, has_ids=values["format"] > 1)


def catalog_line(cluster_id: str, next_folder: int, topics: Iterable[Topic]) -> bytes:
    """Return the catalog as it is written."""
    entries = [[each.name, each.folder, len(each.partitions), each.config, each.id.hex] for each in topics]
    values = {"format": FORMAT, "cluster_id": cluster_id, "next_id": next_folder, "topics": entries}
    return sealed_line(json.dumps(values, separators=(",", ":")).encode())


def write_catalog(directory: Path, line: bytes, environment: Environment) -> None:
    """Replace the catalog durably; in any thread.

    Raises:
        OSError: The old one stays.
    """
    replace_file(directory / "catalog", [line], environment.faults)


def _entry(name: str, folder: int, partitions: int, config: dict[str, str], topic_id: str = "") -> TopicEntry:
    return TopicEntry(name, folder, partitions, config, UUID(topic_id) if topic_id else new_id())
