"""DescribeTopicPartitions: topics in the order of their names, a page of partitions at a time (KIP-966)."""

from typing import NamedTuple
from uuid import UUID

from octopus.broker.api.metadata import TOPIC_OPERATIONS
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.epochs import LEADER_EPOCH
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.topics import check_name
from octopus.broker.wire import NO_ID, Reader

_MOST_PARTITIONS = 2000


class _Cursor(NamedTuple):
    """Where a page begins."""

    topic: str
    partition: int


class _Described(NamedTuple):
    code: int
    name: str
    id: UUID = NO_ID
    partitions: range = range(0)


def handle_describe_topic_partitions(node: Node, request: Request) -> Answer:
    """Describe the topics asked for, or all, from the cursor on; say where the next page begins."""
    reader = request.reader
    asked, limit, cursor = reader.structs(reader.string), reader.int32(), _read_cursor(reader)
    operations, following = TOPIC_OPERATIONS, None
    try:
        request.check()
        names = _names(node, asked, cursor)
        topics, following = _page(node, names, cursor, max(1, min(limit, _MOST_PARTITIONS)))
    except BrokerError as error:
        code = request.refuse(error)
        topics, operations = [_Described(code, name) for name in asked], -(2**31)
    answer = request.answer().int32(0)

    def partition(index: int) -> None:
        answer.int16(Code.NONE).int32(index).int32(NODE_ID).int32(LEADER_EPOCH)
        for replicas in ([NODE_ID], [NODE_ID], [], [], []):  # all, in sync, eligible, last known to be, offline
            answer.array(replicas, answer.int32)

    def topic(each: _Described) -> None:
        answer.int16(each.code).string(each.name).uuid(each.id).boolean(each.name.startswith("__"))
        answer.structs(each.partitions, partition).int32(operations)

    answer.structs(topics, topic)
    if following is None:
        return answer.int8(-1)
    return answer.int8(1).string(following.topic).int32(following.partition).tags()


def _read_cursor(reader: Reader) -> _Cursor | None:
    if reader.int8() < 0:
        return None
    cursor = _Cursor(reader.string(), reader.int32())
    reader.tags()
    return cursor


def _names(node: Node, asked: list[str], cursor: _Cursor | None) -> list[str]:
    first = cursor.topic if cursor else ""
    names = sorted(name for name in set(asked or node.storage.topics) if name >= first)
    if cursor is not None:
        require(not asked or cursor.topic in names, Code.INVALID_REQUEST, "the cursor's topic is not among the topics")
        require(cursor.partition >= 0, Code.INVALID_REQUEST, "the cursor's partition is negative")
    return names


def _page(node: Node, names: list[str], cursor: _Cursor | None, room: int) -> tuple[list[_Described], _Cursor | None]:
    page: list[_Described] = []
    for name in names:
        if room == 0:
            return page, _Cursor(name, 0)
        known = node.storage.topics.get(name)
        if known is None:
            page.append(_Described(_why_missing(name), name))
            continue
        first = cursor.partition if cursor and cursor.topic == name else 0
        after = min(len(known.partitions), first + room)
        page.append(_Described(Code.NONE, name, known.id, range(first, after)))
        if after < len(known.partitions):
            return page, _Cursor(name, after)
        room -= max(0, after - first)
    return page, None


def _why_missing(name: str) -> int:
    try:
        check_name(name)
    except BrokerError as error:
        return error.code
    return Code.UNKNOWN_TOPIC_OR_PARTITION


APIS = (Api(75, "DescribeTopicPartitions", 0, 0, handle_describe_topic_partitions, flexible_from=0),)
