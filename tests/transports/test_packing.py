"""Rounds are packed into batches: messages without a key are shared out, and every call ends whatever becomes of its round."""

import asyncio

import pytest

from octopus.errors import ConnectionFailed
from octopus.transports.base import Outgoing
from octopus.transports.kafka.packing import TURN_BYTES, Packer, Round
from octopus.transports.kafka.producer_engine import Builder
from octopus.transports.kafka.record_batch import RecordBatch
from octopus.transports.partitioner import Partitioner
from octopus.transports.queueing import Call

from .test_queueing import numbered


@pytest.mark.parametrize("taken", [0, 1, 3], ids=["before a batch is full", "after one", "after three"])
async def test_a_round_that_ends_while_it_is_packed_finishes_every_call(taken: int) -> None:
    loop, finished = asyncio.get_running_loop(), []
    calls = [Call(numbered("numbers", number, 20, number % 2), loop.create_future()) for number in range(10)]
    round_ = Round(calls, lambda _, call: finished.append(call))
    packer = Packer(lambda: Builder(RecordBatch(400, is_transactional=False)), {"numbers": 2}, Partitioner())
    packed = filter(None, packer.pack(round_, None))
    dispatched = [next(packed) for _ in range(taken)]
    for batch in dispatched:
        del round_.undispatched[batch]
    round_.abandon(ConnectionFailed("The broker is away."))
    for number, batch in enumerate(dispatched):
        round_.store(batch, 100 * number)
    assert finished == sorted(calls, key=finished.index)
    assert len(finished) == len(calls)
    assert round_.done.is_set()
    stored = 0
    for call in calls:
        with pytest.raises(ConnectionFailed, match="is away") as caught:
            await call.future
        stored += sum(place is not None for place in caught.value.published or ())
    assert stored == sum(len(batch.indexes) for batch in dispatched)


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [(100, 2**20, 1), (TURN_BYTES // 4, 2**20, 4), (TURN_BYTES // 4, 100, 8)],
    ids=["few bytes", "many", "many, in small batches"],
)
async def test_messages_without_a_key_are_shared_out_among_partitions(size: int, limit: int, expected: int) -> None:
    messages = [Outgoing("numbers", b"x" * size) for _ in range(16)]
    round_ = Round([Call(messages, asyncio.get_running_loop().create_future())], lambda *_: None)
    packer = Packer(lambda: Builder(RecordBatch(limit, is_transactional=False)), {"numbers": 8}, Partitioner())
    batches = [*filter(None, packer.pack(round_, None))]
    assert len({batch.partition for batch in batches}) == expected
    assert sorted(index for batch in batches for index in batch.indexes) == [*range(16)]
