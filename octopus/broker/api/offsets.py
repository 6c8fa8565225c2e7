"""ListOffsets: the ends of a partition, and the first record at or after a time."""

from typing import NamedTuple

from octopus.broker.codes import BrokerError, Code
from octopus.broker.node import Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.wire import Writer

LATEST, EARLIEST = -1, -2
_NOT_FOUND = (-1, -1)


class _Found(NamedTuple):
    partition: int
    code: int
    timestamp: int
    offset: int


def handle_list_offsets(node: Node, request: Request) -> Answer:
    """Answer for each partition with an offset and its record's timestamp, -1 where there is none."""
    reader, version = request.reader, request.version
    _replica = reader.int32()
    is_committed = version >= 2 and reader.int8() == 1

    def part() -> tuple[int, int]:
        partition = reader.int32()
        if version >= 4:
            reader.int32()
        return partition, reader.int64()

    topics = reader.array(lambda: (reader.string(), reader.array(part)))
    found = [
        (topic, [_find(node, request, topic, partition, timestamp, is_committed) for partition, timestamp in parts])
        for topic, parts in topics
    ]
    answer = Writer()
    if version >= 2:
        answer.int32(0)

    def write(each: _Found) -> None:
        answer.int32(each.partition).int16(each.code).int64(each.timestamp).int64(each.offset)
        if version >= 4:
            answer.int32(0 if each.offset >= 0 else -1)

    return answer.array(found, lambda topic: answer.string(topic[0]).array(topic[1], write))


def _find(node: Node, request: Request, topic: str, partition: int, timestamp: int, is_committed: bool) -> _Found:
    try:
        request.check()
        log = node.storage.log(topic, partition)
        end = log.stable_offset if is_committed else log.end_offset
        if timestamp == LATEST:
            return _Found(partition, Code.NONE, -1, end)
        if timestamp == EARLIEST:
            return _Found(partition, Code.NONE, -1, log.start_offset)
        offset, stamp = log.find_timestamp(timestamp) or _NOT_FOUND
    except BrokerError as error:
        return _Found(partition, request.refuse(error), -1, -1)
    if offset >= end:
        offset, stamp = _NOT_FOUND
    return _Found(partition, Code.NONE, stamp, offset)


APIS = (Api(2, "ListOffsets", 1, 5, handle_list_offsets, serves_from=1),)
