"""ListTransactions, DescribeTransactions, DescribeProducers: looking for transactions that hang (KIP-664)."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.expressions import Expression
from octopus.broker.log import ActiveProducer
from octopus.broker.node import Node
from octopus.broker.producers import Phase, TransactionState
from octopus.broker.request import Answer, Api, Request
from octopus.broker.wire import Writer

STATES: dict[Phase, str] = {
    "empty": "Empty",
    "ongoing": "Ongoing",
    "prepare_commit": "PrepareCommit",
    "prepare_abort": "PrepareAbort",
    "complete_commit": "CompleteCommit",
    "complete_abort": "CompleteAbort",
}
"""Kafka's names of them."""

_KNOWN = {*STATES.values(), "Dead", "PrepareEpochFence"}
"""The states that a client may ask for; no transaction is ever in the last two here."""


class _Filter(NamedTuple):
    """The transactions that a client asks for; an empty or negative field asks for all."""

    states: frozenset[str]
    producers: frozenset[int]
    duration: int
    name: Expression | None

    def admitted(self, states: Iterable[TransactionState], now: int) -> list[TransactionState]:
        return [each for each in states if self._admits(each, now)]

    def _admits(self, state: TransactionState, now: int) -> bool:
        return (
            (not self.states or STATES[state.phase] in self.states)
            and (not self.producers or state.producer_id in self.producers)
            and (self.duration < 0 or now - state.started > self.duration)
            and (self.name is None or self.name.matches(state.transactional_id))
        )


async def handle_list_transactions(node: Node, request: Request) -> Writer:
    """List the transactional ids with their states: those in the states, of the producers, as old and of the names asked for."""
    reader, version = request.reader, request.version
    states, producers = reader.array(reader.string), reader.array(reader.int64)
    duration = reader.int64() if version >= 1 else -1
    pattern = reader.nullable_string() if version >= 2 else None
    code, found = int(Code.NONE), list[TransactionState]()
    try:
        request.check()
        wanted = _Filter(frozenset(states), frozenset(producers), duration, _expression(pattern))
        known, now = list(node.storage.producers.transactions()), node.now()
        found = await asyncio.to_thread(wanted.admitted, known, now) if pattern else wanted.admitted(known, now)
    except BrokerError as error:
        code, states = request.refuse(error), []
    answer = request.answer().int32(0).int16(code)
    answer.array([name for name in dict.fromkeys(states) if name not in _KNOWN], answer.string)

    def write(each: TransactionState) -> None:
        answer.string(each.transactional_id).int64(each.producer_id).string(STATES[each.phase])

    return answer.structs(found, write)


def _expression(pattern: str | None) -> Expression | None:
    try:
        return Expression(pattern) if pattern else None
    except ValueError as error:
        raise BrokerError(Code.INVALID_REGULAR_EXPRESSION, str(error)) from error


def handle_describe_transactions(node: Node, request: Request) -> Answer:
    """Describe transactional ids: their producers, time limits and partitions."""
    reader = request.reader
    names = reader.array(reader.string)
    answer = request.answer().int32(0)

    def write(name: str) -> None:
        try:
            request.check()
            state = _state(node, name)
        except BrokerError as error:
            answer.int16(request.refuse(error)).string(name).string("").int32(0).int64(0).int64(0).int16(0)
            answer.structs([], id)
            return
        answer.int16(Code.NONE).string(name).string(STATES[state.phase])
        answer.int32(state.timeout_ms).int64(state.started).int64(state.producer_id).int16(state.producer_epoch)
        topics = _by_topic(state.partitions)
        answer.structs(topics, lambda topic: answer.string(topic[0]).array(topic[1], answer.int32))

    return answer.structs(names, write)


def _state(node: Node, name: str) -> TransactionState:
    require(name, Code.INVALID_REQUEST)
    state = node.storage.producers.get(name)
    if state is None:
        raise BrokerError(Code.TRANSACTIONAL_ID_NOT_FOUND)
    return state


def _by_topic(partitions: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    return list(topics.items())


class _Partition(NamedTuple):
    number: int
    code: int
    message: str | None
    producers: list[ActiveProducer]


def handle_describe_producers(node: Node, request: Request) -> Answer:
    """Describe the producers that partitions remember, with the transactions that they have open there."""
    reader = request.reader
    asked = reader.structs(lambda: (reader.string(), reader.array(reader.int32)))
    answer = request.answer().int32(0)

    def producer(each: ActiveProducer) -> None:
        answer.int64(each.producer_id).int32(each.epoch).int32(each.last_sequence).int64(each.timestamp)
        answer.int32(each.coordinator_epoch).int64(each.first)

    def partition(each: _Partition) -> None:
        answer.int32(each.number).int16(each.code).string(each.message).structs(each.producers, producer)

    found = [(topic, [_producers(node, request, topic, each) for each in numbers]) for topic, numbers in asked]
    return answer.structs(found, lambda topic: answer.string(topic[0]).structs(topic[1], partition))


def _producers(node: Node, request: Request, topic: str, number: int) -> _Partition:
    try:
        request.check()
        return _Partition(number, Code.NONE, None, node.storage.log(topic, number).producers)
    except BrokerError as error:
        return _Partition(number, request.refuse(error), error.message or None, [])


APIS = (
    Api(61, "DescribeProducers", 0, 0, handle_describe_producers, flexible_from=0),
    Api(65, "DescribeTransactions", 0, 0, handle_describe_transactions, flexible_from=0),
    Api(66, "ListTransactions", 0, 2, handle_list_transactions, flexible_from=0),
)
