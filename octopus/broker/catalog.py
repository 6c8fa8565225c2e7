"""The catalog: which topics there are, with how many partitions and which configuration; one small file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from octopus.broker.environment import Environment
from octopus.broker.files import open_line, replace_file, sealed_line
from octopus.broker.topics import Topic
from octopus.errors import ConfigurationError

FORMAT = 1


class IncompatibleFormat(ConfigurationError):
    """The directory holds something else, or data that a newer version wrote."""


class TopicEntry(NamedTuple):
    """A topic as the catalog knows it."""

    name: str
    id: int
    partitions: int
    config: dict[str, str]


class Catalog(NamedTuple):
    """The catalog's content.

    Attributes:
        cluster_id: Names the data directory to clients.
        next_id: The id of the next topic; ids name folders and are never used again.
        topics: All topics.
    """

    cluster_id: str
    next_id: int
    topics: list[TopicEntry]


def read_catalog(directory: Path) -> Catalog | None:
    """Return the catalog; None when the directory is new.

    Raises:
        IncompatibleFormat: It was written by a newer version, is damaged, or the directory holds something else.
    """
    path = directory / "catalog"
    if not path.exists():
        strange = {entry.name for entry in directory.iterdir()} - {"lock", "catalog.temp"}
        if strange:
            raise IncompatibleFormat(
                f"The directory {str(directory)!r} is not empty and no broker's data (it holds {min(strange)!r}). Name another."
            )
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
    return Catalog(values["cluster_id"], values["next_id"], [TopicEntry(*entry) for entry in values["topics"]])


def write_catalog(
    directory: Path, cluster_id: str, next_id: int, topics: Iterable[Topic], environment: Environment
) -> None:
    """Replace the catalog durably.

    Raises:
        OSError: The old one stays.
    """
    entries = [TopicEntry(topic.name, topic.id, len(topic.partitions), topic.config) for topic in topics]
    values = {"format": FORMAT, "cluster_id": cluster_id, "next_id": next_id, "topics": entries}
    line = sealed_line(json.dumps(values, separators=(",", ":")).encode())
    replace_file(directory / "catalog", [line], environment.faults)
