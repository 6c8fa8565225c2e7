"""Produce: append batches to partitions and answer when they are durable."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from octopus.broker.api.naming import TopicKey, key_reader, name_of, write_key
from octopus.broker.batch import HEADER_BYTES, read_header
from octopus.broker.codecs import ZSTD
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.log import Admitted, Appended, Log
from octopus.broker.node import Node
from octopus.broker.offsets import Partition
from octopus.broker.request import Api, Hangup, Request
from octopus.broker.wire import Writer


class _Part(NamedTuple):
    partition: int
    records: memoryview


class _Wanted(NamedTuple):
    """A batch that may be stored, and where."""

    place: Partition
    log: Log
    batch: Admitted


class _Result(NamedTuple):
    partition: int
    code: int
    message: str | None
    appended: Appended
    records: Sequence[tuple[int, str]] = ()


_WITH_ZSTD, _BY_ID = 7, 13
"""The versions from which records may be compressed with zstd, and topics are named by their ids."""

_NOTHING = Appended(-1, -1, False, -1)


async def handle_produce(node: Node, request: Request) -> Writer | None:
    """Append everything in one step, so that the order of requests is the order in the log; then wait for the disk."""
    reader = request.reader
    transactional_id, acks, _timeout = reader.nullable_string(), reader.int16(), reader.int32()
    key = key_reader(reader, request.version >= _BY_ID)
    topics = reader.structs(lambda: (key(), reader.structs(lambda: _Part(reader.int32(), reader.view()))))
    now, logs = node.now(), list[Log]()
    async with request.session.turn:
        admitted = [
            (topic, [await _admit(node, request, acks, topic, part, now) for part in parts]) for topic, parts in topics
        ]
        results = [
            (topic, [_append(node, request, transactional_id, each, now, logs) for each in parts])
            for topic, parts in admitted
        ]
    try:
        await node.storage.synced(logs)
    except BrokerError as error:
        # It is unknown which of them reached the disk: all are refused, and repetitions are recognised by their sequence.
        results = [(topic, [_failed(request, each.partition, error) for each in parts]) for topic, parts in results]
    if acks == 0:
        if any(each.code for _, parts in results for each in parts):
            raise Hangup("a Produce request without acknowledgement failed")  # the only way to let such a client know
        return None
    return _answer(request, results)


async def _admit(node: Node, request: Request, acks: int, topic: TopicKey, part: _Part, now: int) -> _Wanted | _Result:
    """Look at a batch; in a thread where that takes time, so that other clients do not wait for it."""
    try:
        request.check()
        require(acks in (-1, 0, 1), Code.INVALID_REQUIRED_ACKS)
        place = name_of(node, topic), part.partition
        log = node.storage.log(*place)
        is_zstd = len(part.records) >= HEADER_BYTES and read_header(part.records).codec == ZSTD
        require(not is_zstd or request.version >= _WITH_ZSTD, Code.UNSUPPORTED_COMPRESSION_TYPE)
        batch = log.admit_quickly(part.records, now)
        if batch is None:
            batch = await asyncio.get_running_loop().run_in_executor(None, log.admitting(part.records, now))
    except BrokerError as error:
        return _failed(request, part.partition, error)
    return _Wanted(place, log, batch)


def _append(
    node: Node, request: Request, transactional_id: str | None, wanted: _Wanted | _Result, now: int, logs: list[Log]
) -> _Result:
    if isinstance(wanted, _Result):
        return wanted
    place, log, batch = wanted
    try:
        appended = log.append(batch, now, transactional_check=node.transactions.check_write(transactional_id, place))
    except BrokerError as error:
        return _failed(request, place[1], error)
    logs.append(log)
    return _Result(place[1], Code.NONE, None, appended)


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
