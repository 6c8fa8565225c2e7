"""Packs messages into record batches, one open batch per partition. Far cheaper than aiokafka's `send` per message."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from octopus import invariants
from octopus.events import Published, TopicPartition
from octopus.transports.base import Outgoing
from octopus.transports.kafka.producer_engine import appender, finish
from octopus.transports.partitioner import Partitioner
from octopus.transports.queueing import Call

TURN_BYTES = 64 * 1024
"""Bytes of values without a key that one partition gets before it is the turn of the next: the work is to be shared out."""

_NO_HEADERS: list[tuple[str, bytes | None]] = []  # read only


@invariants.hold_after("store", "fail", "refuse", "abandon", "release_all")
class Round:
    """Calls whose messages leave together, and where each message ended up.

    Invariant: a call is finished exactly when all of its batches are settled and the round is packed or abandoned. So every batch
    that is begun is either dispatched, and settles there, or is in `undispatched`, and fails when the round is abandoned.

    Args:
        calls: In their order.
        finished: Is told of each call whose messages are all stored or failed.

    Attributes:
        messages: Of all calls.
        published: Where each message was stored; None as long as, or when, it was not.
        undispatched: Batches that are begun and that the engine does not have yet.
        open: How many calls are not finished.
        done: Set when none is left.
    """

    def __init__(self, calls: Sequence[Call], finished: Callable[["Round", Call], None]) -> None:
        self.calls = calls
        self.messages: Sequence[Outgoing] = calls[0].messages if len(calls) == 1 else self._all_of(calls)
        self.published: list[Published | None] = [None] * len(self.messages)
        self.undispatched: dict[Batch, None] = {}
        self.open = len(calls)
        self.done = asyncio.Event()
        self._finished = finished

    @staticmethod
    def _all_of(calls: Sequence[Call]) -> list[Outgoing]:
        messages: list[Outgoing] = []
        for call in calls:
            call.start = len(messages)
            messages += call.messages
        return messages

    def store(self, batch: "Batch", base: int) -> None:
        """Note that the messages of a batch were stored, one after the other from an offset on."""
        indexes, (topic, number) = batch.indexes, batch.partition
        made: list[Published | None] = [Published(topic, number, base + at) for at in range(len(indexes))]
        if indexes[-1] - indexes[0] == len(indexes) - 1:
            self.published[indexes[0] : indexes[-1] + 1] = made
        else:
            for index, published in zip(indexes, made, strict=True):
                self.published[index] = published
        for call in batch.calls:
            self.release(call)

    def fail(self, batch: "Batch", error: Exception) -> None:
        """Note that the messages of a batch were not stored."""
        for call in batch.calls:
            call.error = call.error or error
            self.release(call)

    def refuse(self, indexes: Iterable[int], error: Exception) -> None:
        """Note that messages are not going to be in any batch."""
        for call in self.calls_of(indexes):
            call.error = call.error or error

    def abandon(self, error: Exception) -> None:
        """Give up what the engine does not have yet."""
        for call in self.calls:
            call.error = call.error or error
        undispatched, self.undispatched = self.undispatched, {}
        for batch in undispatched:
            self.fail(batch, error)
        self.release_all()

    def release_all(self) -> None:
        """Note that all messages are in batches."""
        for call in self.calls:
            self.release(call)

    def release(self, call: Call) -> None:
        """Note that one of the batches of a call is settled."""
        call.open -= 1
        if call.open:
            return
        start = call.start
        self._finished(self, call)
        call.finish(self.published[start : start + len(call.messages)])
        self.open -= 1
        if not self.open:
            self.done.set()

    def calls_of(self, indexes: Iterable[int]) -> list[Call]:
        """Return the calls that messages are of, each once."""
        starts = self._starts
        return [self.calls[at] for at in dict.fromkeys(bisect_right(starts, index) - 1 for index in indexes)]

    @cached_property
    def _starts(self) -> list[int]:
        return [call.start for call in self.calls]

    def check(self) -> None:
        """Assert the invariant, as far as it can be seen from here."""
        if len(self.calls) > invariants.SMALL:
            return
        assert self.open == sum(call.open > 0 for call in self.calls)
        assert not (self.open and self.done.is_set())
        assert all(call.open > 0 for batch in self.undispatched for call in batch.calls)


class Batch:
    """A batch under construction: which messages are in it, and aiokafka's builder.

    Attributes:
        round: Where its messages are.
        indexes: Their indexes there.
        calls: The calls that they are of.
        deadline: Time of the loop at which it is too late; None until it is dispatched.
        number: Its place among all batches; its parts have the same. 0 until it is dispatched.
    """

    __slots__ = ("append", "builder", "calls", "deadline", "indexes", "number", "partition", "round")

    def __init__(self, partition: TopicPartition, builder: Any, round_: Round) -> None:
        self.partition = partition
        self.builder = builder
        self.append = appender(builder)
        self.round = round_
        self.indexes: list[int] = []
        self.calls: list[Call] = []
        self.deadline: float | None = None
        self.number = 0

    @property
    def place(self) -> tuple[int, int]:
        """Its place among the batches of its partition, parts of others included."""
        return self.number, self.indexes[0]

    def again(self, builder: Any, indexes: Sequence[int] | None = None) -> "Batch":
        """Return a batch of these messages, or some of them, in a builder that has room for all."""
        again = Batch(self.partition, builder, self.round)
        again.deadline, again.number = self.deadline, self.number
        for index in self.indexes if indexes is None else indexes:
            message = self.round.messages[index]
            again.append(len(again.indexes), message.timestamp, message.key, message.value, list(message.headers))
            again.indexes.append(index)
        again.calls = self.calls if indexes is None else self.round.calls_of(indexes)
        return again

    def close(self) -> Any:
        """Return the builder, complete."""
        finish(self.builder, len(self.indexes))
        return self.builder


class Packer:
    """Makes batches of messages.

    Args:
        new_builder: Makes an empty batch builder of aiokafka's.
        partitions: How many partitions each topic of the messages has.
        partitioner: Chooses partitions.
    """

    def __init__(self, new_builder: Callable[[], Any], partitions: dict[str, int], partitioner: Partitioner) -> None:
        self._new_builder = new_builder
        self._partitions = partitions
        self._partitioner = partitioner

    def pack(self, round_: Round, accepted: Sequence[int] | None) -> Iterator[Batch | None]:
        """Yield full batches as they close, then the rest; per partition they hold the messages in order.

        Messages without a key go to one partition after the other, `TURN_BYTES` or a full batch at a time, as with Kafka's sticky
        partitioner. None is yielded behind each call: there others may have their turn. A message that cannot be packed is refused,
        and no other for it.

        Args:
            round_: Whose messages.
            accepted: The indexes of those to pack; None for all.
        """
        of_key = self._partitioner.of_key
        messages = round_.messages
        opened: dict[tuple[str, int], Batch] = {}
        unkeyed: dict[str, Batch] = {}  # of those, the ones that take messages without a key
        turn = TURN_BYTES  # what is left of theirs
        for call, indexes in _by_call(round_, accepted):
            for index in indexes:
                try:
                    message = messages[index]
                    topic, key, number, headers = message.topic, message.key, message.partition, message.headers
                    if number is None and key is None:
                        turn -= len(message.value or b"")
                        if turn < 0:
                            unkeyed.clear()
                            turn = TURN_BYTES
                        batch = unkeyed.get(topic)
                        if batch is None:
                            chosen = self._partitioner.next_for_batch(self._partitions[topic])
                            batch = unkeyed[topic] = self._open(opened, topic, chosen, round_)
                    else:
                        if number is None:
                            number = of_key(key, self._partitions[topic])  # type: ignore[arg-type]
                        batch = opened.get((topic, number)) or self._open(opened, topic, number, round_)
                    if type(headers) is not list:
                        headers = [*headers] if headers else _NO_HEADERS
                    inside = batch.indexes
                    if batch.append(len(inside), message.timestamp, key, message.value, headers) is None:
                        yield batch
                        del opened[batch.partition]
                        if unkeyed.get(topic) is batch:
                            del unkeyed[topic]
                        batch = self._open(opened, *batch.partition, round_)
                        batch.append(0, message.timestamp, key, message.value, headers)
                        inside = batch.indexes
                    inside.append(index)
                    if (calls := batch.calls) and calls[-1] is call:
                        continue
                    calls.append(call)
                    call.open += 1
                except Exception as error:  # noqa: BLE001 - its own call gets it; the others are packed
                    round_.refuse([index], error)
            yield None
        for batch in opened.values():
            if batch.indexes:
                yield batch
            else:  # opened for a message that cannot be packed
                del round_.undispatched[batch]

    def _open(self, opened: dict[tuple[str, int], Batch], topic: str, number: int, round_: Round) -> Batch:
        batch = opened.get((topic, number))
        if batch is None:
            batch = opened[(topic, number)] = Batch(TopicPartition(topic, number), self._new_builder(), round_)
            round_.undispatched[batch] = None
        return batch


def _by_call(round_: Round, accepted: Sequence[int] | None) -> Iterator[tuple[Call, Sequence[int]]]:
    if accepted is None:
        for call in round_.calls:
            yield call, range(call.start, call.start + len(call.messages))
    else:
        at = 0
        for call in round_.calls:
            end = bisect_left(accepted, call.start + len(call.messages), at)
            yield call, accepted[at:end]
            at = end
