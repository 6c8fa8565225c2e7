"""Produce: append batches to partitions and answer when they are durable."""

from collections.abc import Sequence
from typing import NamedTuple

from octopus.broker.api.naming import TopicKey, key_reader, name_of, write_key
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.log import Appended, Log
from octopus.broker.node import Node
from octopus.broker.request import Api, Hangup, Request
from octopus.broker.wire import Writer


class _Part(NamedTuple):
    partition: int
    records: memoryview


class _Result(NamedTuple):
    partition: int
    code: int
    message: str | None
    appended: Appended
    records: Sequence[tuple[int, str]] = ()


_BY_ID = 13
"""The version from which topics are named by their ids."""

_NOTHING = Appended(-1, -1, False, -1)


async def handle_produce(node: Node, request: Request) -> Writer | None:
    """Append everything in one step, so that the order of requests is the order in the log; then wait for the disk."""
    reader = request.reader
    transactional_id, acks, _timeout = reader.nullable_string(), reader.int16(), reader.int32()
    key = key_reader(reader, request.version >= _BY_ID)
    topics = reader.structs(lambda: (key(), reader.structs(lambda: _Part(reader.int32(), reader.view()))))
    logs: list[Log] = []
    results = [
        (topic, [_append(node, request, transactional_id, acks, topic, part, logs) for part in parts])
        for topic, parts in topics
    ]
    try:
        await node.storage.synced(logs)
    except BrokerError as error:
        # Nobody knows which of them reached the disk: all are refused, and what is sent again is recognised by its sequence.
        results = [(topic, [_failed(request, each.partition, error) for each in parts]) for topic, parts in results]
    if acks == 0:
        if any(each.code for _, parts in results for each in parts):
            raise Hangup("a Produce request without acknowledgement failed")  # the only way to let such a client know
        return None
    return _answer(request, results)


def _append(
    node: Node, request: Request, transactional_id: str | None, acks: int, topic: TopicKey, part: _Part, logs: list[Log]
) -> _Result:
    try:
        request.check()
        require(acks in (-1, 0, 1), Code.INVALID_REQUIRED_ACKS)
        place = name_of(node, topic), part.partition
        log = node.storage.log(*place)
        check = node.transactions.check_write(transactional_id, place)
        appended = log.append(part.records, node.now(), transactional_check=check)
    except BrokerError as error:
        return _failed(request, part.partition, error)
    logs.append(log)
    return _Result(part.partition, Code.NONE, None, appended)


def _failed(request: Request, partition: int, error: BrokerError) -> _Result:
    return _Result(partition, request.refuse(error), error.message or None, _NOTHING, error.records)


def _answer(request: Request, topics: list[tuple[TopicKey, list[_Result]]]) -> Writer:
    answer, version = request.answer(), request.version

    def partition(result: _Result) -> None:
        answer.int32(result.partition).int16(result.code)
        answer.int64(result.appended.base_offset).int64(result.appended.append_time)
        if version >= 5:
            answer.int64(result.appended.log_start)
        if version >= 8:
            answer.structs(result.records, lambda each: answer.int32(each[0]).string(each[1])).string(result.message)

    answer.structs(topics, lambda topic: write_key(answer, topic[0]).structs(topic[1], partition))
    return answer.int32(0)


APIS = (Api(0, "Produce", 0, 13, handle_produce, flexible_from=9, serves_from=3, may_overlap=True),)
