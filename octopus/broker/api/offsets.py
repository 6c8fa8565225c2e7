"""ListOffsets, OffsetForLeaderEpoch: the ends of a partition, and the first record at or after a time."""

from typing import NamedTuple

from octopus.broker import epochs
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.epochs import LEADER_EPOCH
from octopus.broker.log import Log
from octopus.broker.node import Node
from octopus.broker.request import Answer, Api, Request

LATEST, EARLIEST, NEWEST, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -1, -2, -3, -4, -5, -6
"""Special values in place of a time; `NEWEST` is the record with the largest timestamp."""

_SINCE = {LATEST: 1, EARLIEST: 1, NEWEST: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11}
"""The version from which each may be asked for."""

_NOT_FOUND = (-1, -1)


class _Wanted(NamedTuple):
    partition: int
    current_epoch: int
    timestamp: int


class _Found(NamedTuple):
    partition: int
    code: int
    offset: int = -1
    timestamp: int = -1


def handle_list_offsets(node: Node, request: Request) -> Answer:
    """Answer for each partition with an offset and its record's timestamp, -1 where there is none."""
    reader, version = request.reader, request.version
    _replica = reader.int32()
    is_committed = version >= 2 and reader.int8() == 1

    def wanted() -> _Wanted:
        return _Wanted(reader.int32(), reader.int32() if version >= 4 else -1, reader.int64())

    topics = reader.structs(lambda: (reader.string(), reader.structs(wanted)))
    found = [(topic, [_find(node, request, topic, each, is_committed) for each in parts]) for topic, parts in topics]
    answer = request.answer()
    if version >= 2:
        answer.int32(0)

    def write(each: _Found) -> None:
        answer.int32(each.partition).int16(each.code).int64(each.timestamp).int64(each.offset)
        if version >= 4:
            answer.int32(LEADER_EPOCH if each.offset >= 0 else -1)

    return answer.structs(found, lambda topic: answer.string(topic[0]).structs(topic[1], write))


def _find(node: Node, request: Request, topic: str, wanted: _Wanted, is_committed: bool) -> _Found:
    try:
        request.check()
        is_time = wanted.timestamp >= 0
        require(is_time or request.version >= _SINCE.get(wanted.timestamp, 1 << 15), Code.UNSUPPORTED_VERSION)
        log = node.storage.log(topic, wanted.partition)
        epochs.check_current(wanted.current_epoch)
        found = _offset(log, wanted.timestamp, log.stable_offset if is_committed else log.end_offset)
    except BrokerError as error:
        return _Found(wanted.partition, request.refuse(error))
    return _Found(wanted.partition, Code.NONE, *found)


def _offset(log: Log, wanted: int, end: int) -> tuple[int, int]:
    """Return an offset and its record's timestamp, -1 for none; `end` is the end of the visible records."""
    if wanted == LATEST:
        return end, -1
    if wanted in (EARLIEST, EARLIEST_LOCAL):
        return log.start_offset, -1
    if wanted in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return _NOT_FOUND  # there is no tiered storage
    found = (log.find_newest() if wanted == NEWEST else log.find_timestamp(wanted)) or _NOT_FOUND
    return found if found[0] < end else _NOT_FOUND


class _Epoch(NamedTuple):
    partition: int
    current: int
    wanted: int


def handle_offset_for_leader_epoch(node: Node, request: Request) -> Answer:
    """Answer where the records that a leader of some epoch wrote end: a client compares, and knows which records were cut off."""
    reader, version = request.reader, request.version
    if version >= 3:
        _replica = reader.int32()

    def wanted() -> _Epoch:
        return _Epoch(reader.int32(), reader.int32(), reader.int32())

    topics = reader.structs(lambda: (reader.string(), reader.structs(wanted)))
    answer = request.answer().int32(0)
    found = [(topic, [_end_of(node, request, topic, each) for each in parts]) for topic, parts in topics]

    def write(each: tuple[int, int, int, int]) -> None:
        partition, code, epoch, end = each
        answer.int16(code).int32(partition).int32(epoch).int64(end)

    return answer.structs(found, lambda topic: answer.string(topic[0]).structs(topic[1], write))


def _end_of(node: Node, request: Request, topic: str, epoch: _Epoch) -> tuple[int, int, int, int]:
    try:
        request.check()
        log = node.storage.log(topic, epoch.partition)
        epochs.check_current(epoch.current)
    except BrokerError as error:
        return epoch.partition, request.refuse(error), epochs.UNKNOWN, -1
    return epoch.partition, Code.NONE, *epochs.end_of(log, epoch.wanted)


APIS = (
    Api(2, "ListOffsets", 1, 11, handle_list_offsets, flexible_from=6, serves_from=1),
    Api(23, "OffsetForLeaderEpoch", 2, 4, handle_offset_for_leader_epoch, flexible_from=4, serves_from=2),
)
