"""Fetch: read from partitions, waiting for records by event, never by tick."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Log, Read
from octopus.broker.node import Node
from octopus.broker.request import Api, Request
from octopus.broker.wire import Writer


@dataclass(slots=True)
class _Slice:
    """One partition's part of a fetch."""

    partition: int
    offset: int
    max_bytes: int
    log: Log | None = None
    read: Read | None = None
    size: int = 0
    code: int = 0


@dataclass(slots=True)
class _Fetch:
    """A Fetch request, and how far it is: totals are kept, so that a thousand partitions are not summed a thousand times."""

    max_wait: int
    min_bytes: int
    max_bytes: int
    is_committed: bool
    topics: list[tuple[str, list[_Slice]]]
    size: int = 0
    has_error: bool = False

    def slices(self) -> list[_Slice]:
        return [each for _, slices in self.topics for each in slices]

    def is_answerable(self) -> bool:
        return self.has_error or self.size >= self.min_bytes or not any(slices for _, slices in self.topics)


async def handle_fetch(node: Node, request: Request) -> Writer:
    """Answer at once when enough is there or anything is wrong, else when enough has come or time is up.

    A coroutine from its first line: reading and beginning to wait are one step, so that no append falls in between.
    """
    fetch, session_id = _parse(node, request)
    if session_id:
        # Sessions are never given out (the answer's id is 0), so nobody can have one.
        return _answer(request, fetch, Code.FETCH_SESSION_ID_NOT_FOUND)
    for topic, slices in fetch.topics:
        for each in slices:
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

    # One future for the end of time and of the broker, one per round for what moves.
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


def _open(node: Node, request: Request, topic: str, fetch: _Fetch, each: _Slice) -> None:
    try:
        request.check()
        each.log = node.storage.log(topic, each.partition)
    except BrokerError as error:
        each.code, fetch.has_error = request.refuse(error), True


def _read(request: Request, fetch: _Fetch, each: _Slice) -> None:
    """Read, or read again, one partition into the room that the others leave; the first with records may exceed it."""
    if each.log is None:
        return
    fetch.size -= each.size
    room = max(0, min(each.max_bytes, fetch.max_bytes - fetch.size))
    try:
        each.read = each.log.read(each.offset, room, committed=fetch.is_committed, at_least_one=fetch.size == 0)
        each.size = each.read.size
    except BrokerError as error:
        each.read, each.size = None, 0
        each.code, fetch.has_error = request.refuse(error), True
    fetch.size += each.size


def _parse(node: Node, request: Request) -> tuple[_Fetch, int]:
    reader, version = request.reader, request.version
    _replica, max_wait, min_bytes, max_bytes = reader.int32(), reader.int32(), reader.int32(), reader.int32()
    is_committed = reader.int8() == 1
    session_id = 0
    if version >= 7:
        session_id, _epoch = reader.int32(), reader.int32()

    def part() -> _Slice:
        partition = reader.int32()
        if version >= 9:
            reader.int32()
        offset = reader.int64()
        if version >= 5:
            reader.int64()
        return _Slice(partition, offset, reader.int32())

    topics = reader.array(lambda: (reader.string(), reader.array(part)))
    max_bytes = min(max_bytes, node.limits.max_fetch_bytes)
    return _Fetch(max_wait, min_bytes, max_bytes, is_committed, topics), session_id


def _answer(request: Request, fetch: _Fetch, code: int = 0) -> Writer:
    version = request.version
    answer = Writer().int32(0)
    if version >= 7:
        answer.int16(code).int32(0)

    def part(each: _Slice) -> None:
        read = each.read or Read([], -1, -1, -1, [])
        answer.int32(each.partition).int16(each.code).int64(read.high).int64(read.stable)
        if version >= 5:
            answer.int64(read.start)
        answer.array(read.aborted, lambda aborted: answer.int64(aborted[0]).int64(aborted[1]))
        if version >= 11:
            answer.int32(-1)
        answer.records(read.parts)

    return answer.array([] if code else fetch.topics, lambda topic: answer.string(topic[0]).array(topic[1], part))


APIS = (Api(1, "Fetch", 4, 11, handle_fetch, serves_from=4, waits_only=True),)
