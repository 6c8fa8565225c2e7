"""Metadata: the one broker, and which partitions there are."""

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.topics import Topic
from octopus.broker.wire import Writer

NOT_ASKED = -(2**31)
TOPIC_OPERATIONS, CLUSTER_OPERATIONS = 0xDF8, 0x1FA0
"""All operations, as Kafka answers without an authorizer; a client that asked crashes on `NOT_ASKED`."""


def handle_metadata(node: Node, request: Request) -> Answer:
    """Describe the cluster and the topics asked for, creating unknown ones if both sides allow it."""
    reader, version = request.reader, request.version
    names = reader.nullable_array(reader.string)
    may_create = reader.boolean() if version >= 4 else True
    asks_cluster, asks_topics = (reader.boolean(), reader.boolean()) if version >= 8 else (False, False)
    if names is None or (version == 0 and not names):
        names = list(node.storage.topics)
    topics = [(name, *_look_up(node, request, name, may_create)) for name in names]

    answer = Writer()
    if version >= 3:
        answer.int32(0)
    answer.int32(1).int32(NODE_ID).string(request.session.host).int32(request.session.port)
    if version >= 1:
        answer.string(None)
    if version >= 2:
        answer.string(node.storage.cluster_id)
    if version >= 1:
        answer.int32(NODE_ID)

    def partition(index: int) -> None:
        answer.int16(Code.NONE).int32(index).int32(NODE_ID)
        if version >= 7:
            answer.int32(0)
        answer.int32(1).int32(NODE_ID).int32(1).int32(NODE_ID)
        if version >= 5:
            answer.int32(0)

    def topic(entry: tuple[str, int, Topic | None]) -> None:
        name, code, found = entry
        answer.int16(code).string(name)
        if version >= 1:
            answer.boolean(name.startswith("__"))
        answer.array(range(len(found.partitions)) if found else [], partition)
        if version >= 8:
            answer.int32(TOPIC_OPERATIONS if asks_topics else NOT_ASKED)

    answer.array(topics, topic)
    if version >= 8:
        answer.int32(CLUSTER_OPERATIONS if asks_cluster else NOT_ASKED)
    return answer


def _look_up(node: Node, request: Request, name: str, may_create: bool) -> tuple[int, Topic | None]:
    try:
        request.check()
        known = node.storage.topics.get(name)
        if known is not None:
            return Code.NONE, known
        # Reserved names are never created in passing: a mistyped internal topic would look like a real one.
        may_create = may_create and node.settings.auto_create and not name.startswith("__")
        require(may_create, Code.UNKNOWN_TOPIC_OR_PARTITION)
        return Code.NONE, node.storage.create_topic(name, node.settings.default_partitions)
    except BrokerError as error:
        return request.refuse(error), None


APIS = (Api(3, "Metadata", 0, 8, handle_metadata),)
