"""Fetch: read from partitions, waiting for records by event, never by tick."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from struct import Struct

from octopus.broker import epochs
from octopus.broker.api.naming import TopicKey, key_reader, name_of, write_key
from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Log, Read
from octopus.broker.node import Node
from octopus.broker.request import Api, Request
from octopus.broker.wire import Writer

_FINAL = -1
_FULL = (0, _FINAL)
"""Session epochs of a request that names all it wants: the first one of a session, and one without or at the end of one."""

_FLEXIBLE = 12
"""The version from which the encoding is flexible."""

_BY_ID = 13
"""The version from which topics are named by their ids."""

_DIVERGING = 0  # a tag: the client has read records that are not here
_EPOCH_AND_END = Struct(">iqx")  # and no tagged fields


@dataclass(slots=True)
class _Slice:
    """One partition's part of a fetch."""

    partition: int
    current_epoch: int
    offset: int
    last_epoch: int
    max_bytes: int
    log: Log | None = None
    read: Read | None = None
    size: int = 0
    code: int = 0
    has_diverged: bool = False


@dataclass(frozen=True, slots=True)
class _Topic:
    key: TopicKey
    slices: list[_Slice]


@dataclass(slots=True)
class _Fetch:
    """A Fetch request, and how far it is: totals are kept, so that a thousand partitions are not summed a thousand times."""

    max_wait: int
    min_bytes: int
    max_bytes: int
    is_committed: bool
    topics: list[_Topic]
    size: int = 0
    has_error: bool = False

    def slices(self) -> list[_Slice]:
        return [each for topic in self.topics for each in topic.slices]

    def is_answerable(self) -> bool:
        return self.has_error or self.size >= self.min_bytes or not any(topic.slices for topic in self.topics)


async def handle_fetch(node: Node, request: Request) -> Writer:
    """Answer at once when enough is there or a partition has an error, else when enough has come or time is up.

    A coroutine from its first line: reading and beginning to wait are one step, so that no append falls in between.
    """
    fetch, session_epoch = _parse(node, request)
    if session_epoch not in _FULL:
        # Sessions (KIP-227) are never given out: the answer's id is 0. So no client can go on with one, but may end one.
        return _answer(request, fetch, Code.FETCH_SESSION_ID_NOT_FOUND)
    for topic in fetch.topics:
        for each in topic.slices:
            _open(node, request, topic, fetch, each)
            _read(request, fetch, each)
    if fetch.is_answerable() or fetch.max_wait <= 0 or node.is_stopping:
        return _answer(request, fetch)
    return await _wait(node, request, fetch)


def answer_nothing(request: Request) -> Writer:
    """Answer without reading: the client is over its quota."""
    return _answer(request, _Fetch(0, 0, 0, False, []))


async def _wait(node: Node, request: Request, fetch: _Fetch) -> Writer:
    loop = asyncio.get_running_loop()
    moved: list[_Slice] = []
    wake: asyncio.Future[None] = loop.create_future()

    armed: dict[int, tuple[Log, Callable[[], None]]] = {}

    def arm(slices: list[_Slice]) -> None:
        for each in slices:
            assert each.log is not None
            waiter = partial(on_move, each)
            armed[id(each)] = each.log, waiter
            each.log.add_waiter(waiter)

    def on_move(each: _Slice) -> None:
        moved.append(each)
        end(wake)

    def end(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

    # One future for the end of time and of the broker, one per round for new records.
    over: asyncio.Future[None] = loop.create_future()
    over.add_done_callback(lambda _: end(wake))
    node.waits.add(over)
    timer = loop.call_later(fetch.max_wait / 1000, end, over)
    arm(fetch.slices())
    try:
        while True:
            await wake
            again, moved = moved, []
            for each in again:
                _read(request, fetch, each)
            if fetch.is_answerable() or over.done():
                return _answer(request, fetch)
            wake = loop.create_future()
            arm(again)
    finally:
        timer.cancel()
        node.waits.discard(over)
        for log, waiter in armed.values():
            log.remove_waiter(waiter)


def _open(node: Node, request: Request, topic: _Topic, fetch: _Fetch, each: _Slice) -> None:
    try:
        request.check()
        log = node.storage.log(name_of(node, topic.key), each.partition)
        # Here, unlike elsewhere, Kafka takes any negative epoch for none.
        if each.current_epoch > epochs.LEADER_EPOCH:
            epochs.check_current(each.current_epoch)
        if each.last_epoch > epochs.UNKNOWN:
            each.has_diverged = epochs.has_diverged(log, each.last_epoch, each.offset)
            fetch.has_error = fetch.has_error or each.has_diverged
        each.log = log
    except BrokerError as error:
        each.code, fetch.has_error = request.refuse(error), True


def _read(request: Request, fetch: _Fetch, each: _Slice) -> None:
    """Read, or read again, one partition into the room that the others leave; the first with records may exceed it."""
    if each.log is None:
        return
    fetch.size -= each.size
    room = max(0, min(each.max_bytes, fetch.max_bytes - fetch.size))
    try:
        # A client that has read records which are gone learns its place to return to, and nothing else.
        offset = each.log.end_offset if each.has_diverged else each.offset
        each.read = each.log.read(offset, room, committed=fetch.is_committed, at_least_one=fetch.size == 0)
        each.size = each.read.size
    except BrokerError as error:
        each.read, each.size = None, 0
        each.code, fetch.has_error = request.refuse(error), True
    fetch.size += each.size


def _parse(node: Node, request: Request) -> tuple[_Fetch, int]:
    reader, version = request.reader, request.version
    if version <= 14:
        _replica = reader.int32()
    max_wait, min_bytes, max_bytes = reader.int32(), reader.int32(), reader.int32()
    is_committed = reader.int8() == 1
    session_epoch = _FINAL
    if version >= 7:
        _session_id, session_epoch = reader.int32(), reader.int32()

    def part() -> _Slice:
        partition = reader.int32()
        current_epoch = reader.int32() if version >= 9 else epochs.UNKNOWN
        offset = reader.int64()
        last_epoch = reader.int32() if version >= 12 else epochs.UNKNOWN
        if version >= 5:
            _log_start = reader.int64()
        return _Slice(partition, current_epoch, offset, last_epoch, reader.int32())

    key = key_reader(reader, version >= _BY_ID)
    topics = reader.structs(lambda: _Topic(key(), reader.structs(part)))
    max_bytes = min(max_bytes, node.limits.max_fetch_bytes)
    return _Fetch(max_wait, min_bytes, max_bytes, is_committed, topics), session_epoch


def _answer(request: Request, fetch: _Fetch, code: int = 0) -> Writer:
    version = request.version
    answer = request.answer().int32(0)
    if version >= 7:
        answer.int16(code).int32(0)

    def part(each: _Slice) -> None:
        read = each.read or Read([], -1, -1, -1, [])
        answer.int32(each.partition).int16(each.code).int64(read.high).int64(read.stable)
        if version >= 5:
            answer.int64(read.start)
        answer.structs(read.aborted, lambda aborted: answer.int64(aborted[0]).int64(aborted[1]))
        if version >= 11:
            answer.int32(-1)
        answer.records(read.parts)
        if each.has_diverged:
            answer.tags((_DIVERGING, _EPOCH_AND_END.pack(epochs.LEADER_EPOCH, read.high)))
        elif version >= _FLEXIBLE:
            answer.tags()

    def topic(each: _Topic) -> None:
        write_key(answer, each.key).array(each.slices, part)  # which end with tagged fields of their own

    return answer.structs([] if code else fetch.topics, topic)


APIS = (Api(1, "Fetch", 4, 18, handle_fetch, flexible_from=_FLEXIBLE, serves_from=4, waits_only=True),)
