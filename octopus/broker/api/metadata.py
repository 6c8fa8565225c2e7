"""Metadata: the one broker, and which partitions there are."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.epochs import LEADER_EPOCH
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.topics import Topic
from octopus.broker.wire import NO_ID, Writer

NOT_ASKED = -(2**31)
TOPIC_OPERATIONS, CLUSTER_OPERATIONS = 0xDF8, 0x1FA0
"""All operations, as Kafka answers without an authorizer; a client that asked crashes on `NOT_ASKED`."""


class _Wanted(NamedTuple):
    """A topic asked for; by its id if it has one."""

    id: UUID
    name: str | None


class _Described(NamedTuple):
    name: str | None
    id: UUID
    code: int
    topic: Topic | None


def handle_metadata(node: Node, request: Request) -> Answer:
    """Describe the cluster and the topics asked for, creating unknown ones if both sides allow it."""
    reader, version = request.reader, request.version

    def wanted() -> _Wanted:
        return _Wanted(reader.uuid(), reader.nullable_string()) if version >= 10 else _Wanted(NO_ID, reader.string())

    asked = reader.nullable_structs(wanted)
    may_create = reader.boolean() if version >= 4 else True
    asks_cluster = reader.boolean() if 8 <= version <= 10 else False
    asks_topics = reader.boolean() if version >= 8 else False
    if asked is None or (version == 0 and not asked):
        asked = [_Wanted(NO_ID, name) for name in node.storage.topics]
    try:
        _check(asked, version)
    except BrokerError as error:
        return _refused(request, error, asked)
    operations = TOPIC_OPERATIONS if asks_topics else NOT_ASKED

    def described(refusals: dict[str, BrokerError]) -> Writer:
        answer = _cluster(node, request)
        answer.structs(_described(node, request, asked, refusals), _topic_writer(answer, version, operations))
        if 8 <= version <= 10:
            answer.int32(CLUSTER_OPERATIONS if asks_cluster else NOT_ASKED)
        return answer.int16(Code.NONE) if version >= 13 else answer

    async def created(names: list[str]) -> Writer:
        return described({name: error for name in names if (error := await _create(node, name)) is not None})

    missing = _missing(node, asked) if may_create and node.settings.auto_create and not request.fault else []
    return created(missing) if missing else described({})


def _check(asked: list[_Wanted], version: int) -> None:
    """Refuse, as Kafka does, a field that versions 10 and 11 have without a meaning."""
    require(version >= 12 or all(each.id == NO_ID for each in asked), Code.INVALID_REQUEST)
    require(all(each.id != NO_ID or each.name is not None for each in asked), Code.INVALID_REQUEST)


def _cluster(node: Node, request: Request) -> Writer:
    version = request.version
    answer = request.answer()
    if version >= 3:
        answer.int32(0)

    def broker(node_id: int) -> None:
        answer.int32(node_id).string(request.session.host).int32(request.session.port)
        if version >= 1:
            answer.string(None)

    answer.structs([NODE_ID], broker)
    if version >= 2:
        answer.string(node.storage.cluster_id)
    return answer.int32(NODE_ID) if version >= 1 else answer


def _topic_writer(answer: Writer, version: int, operations: int) -> Callable[[_Described], None]:
    def partition(index: int) -> None:
        answer.int16(Code.NONE).int32(index).int32(NODE_ID)
        if version >= 7:
            answer.int32(LEADER_EPOCH)
        answer.array([NODE_ID], answer.int32).array([NODE_ID], answer.int32)
        if version >= 5:
            answer.array([], answer.int32)

    def topic(each: _Described) -> None:
        answer.int16(each.code).string(each.name)
        if version >= 10:
            answer.uuid(each.id)
        if version >= 1:
            answer.boolean(each.name is not None and each.name.startswith("__"))
        answer.structs(range(len(each.topic.partitions)) if each.topic else [], partition)
        if version >= 8:
            answer.int32(operations)

    return topic


def _missing(node: Node, asked: list[_Wanted]) -> list[str]:
    """Name the topics to create. Reserved names are never created in passing: a mistyped internal topic would look real."""
    names = {each.name for each in _counted(asked) if each.name is not None and each.id == NO_ID}
    return sorted(name for name in names if name not in node.storage.topics and not name.startswith("__"))


async def _create(node: Node, name: str) -> BrokerError | None:
    try:
        await node.storage.made(node.storage.topic_store.creating(name, node.settings.default_partitions, {}))
    except BrokerError as error:
        # Another request makes it: a client that asks again finds it.
        return BrokerError(Code.LEADER_NOT_AVAILABLE) if error.code == Code.TOPIC_ALREADY_EXISTS else error
    return None


def _counted(asked: list[_Wanted]) -> list[_Wanted]:
    # Kafka's rule: where any topic is asked for by its id, those without one are passed over.
    return [each for each in asked if each.id != NO_ID] or asked


def _described(
    node: Node, request: Request, asked: list[_Wanted], refusals: dict[str, BrokerError]
) -> list[_Described]:
    return [_look_up(node, request, each, refusals) for each in _counted(asked)]


def _look_up(node: Node, request: Request, wanted: _Wanted, refusals: dict[str, BrokerError]) -> _Described:
    name = wanted.name if wanted.id == NO_ID else None
    try:
        request.check()
        if name is None:
            name = node.storage.name_of(wanted.id)
        topic = node.storage.topics.get(name)
        if topic is None:
            raise refusals.get(name) or BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION)
    except BrokerError as error:
        return _Described(name, wanted.id, request.refuse(error), None)
    return _Described(name, topic.id, Code.NONE, topic)


def _refused(request: Request, error: BrokerError, asked: list[_Wanted]) -> Writer:
    """Answer as Kafka does where the request as a whole is wrong: with its code for each topic, and no cluster."""
    code, version = request.refuse(error), request.version
    answer = request.answer().int32(0).structs([], lambda _: None).string(None).int32(-1)
    topics = [_Described(each.name or "", each.id, code, None) for each in asked]
    answer.structs(topics, _topic_writer(answer, version, NOT_ASKED))
    return answer.int32(NOT_ASKED) if version <= 10 else answer


APIS = (Api(3, "Metadata", 0, 13, handle_metadata, flexible_from=9),)
