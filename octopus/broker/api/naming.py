"""How requests name topics: by their names, and in an API's newer versions by their ids."""

from collections.abc import Callable
from uuid import UUID

from octopus.broker.node import Node
from octopus.broker.wire import Reader, Writer

TopicKey = str | UUID
"""A topic as a client named it, which is how its answer names it."""


def key_reader(reader: Reader, by_id: bool) -> Callable[[], TopicKey]:
    """Return the reader of a topic's key."""
    return reader.uuid if by_id else reader.string


def write_key(answer: Writer, key: TopicKey) -> Writer:
    """Write a topic's key."""
    return answer.uuid(key) if isinstance(key, UUID) else answer.string(key)


def name_of(node: Node, key: TopicKey) -> str:
    """Return the name of the topic with this id, if there is one; a given name may belong to no topic.

    Raises:
        BrokerError: 100 unknown id.
    """
    return node.storage.name_of(key) if isinstance(key, UUID) else key
