"""Transactions on either broker, in bytes: begun, written to and ended."""

import asyncio
from dataclasses import dataclass

from octopus.broker.batch import TRANSACTIONAL, Record, encode_batch
from octopus.broker.codes import Code
from octopus.broker.wire import Reader, Writer
from tests.broker.requests_and_answers import END_TXN, INIT_PRODUCER_ID, PRODUCE, produce, produced
from tests.broker.topics_on_either import find_coordinator
from tests.broker.wire_client import WireClient

ADD_PARTITIONS = 24
_AGAIN = {Code.CONCURRENT_TRANSACTIONS, Code.COORDINATOR_LOAD_IN_PROGRESS, Code.NOT_COORDINATOR}


@dataclass(frozen=True)
class Producing:
    """A producer of a transactional id."""

    name: str
    id: int
    epoch: int


async def initialized(peer: WireClient, name: str, timeout_ms: int = 60_000) -> Producing:
    """Begin, or begin anew, with a transactional id."""
    await find_coordinator(peer, name, is_transaction=True)
    async with asyncio.timeout(15):
        while True:
            answer = await peer.ask(INIT_PRODUCER_ID, 1, Writer().string(name).int32(timeout_ms))
            answer.int32()
            code = answer.int16()
            if code not in _AGAIN:
                assert code == Code.NONE
                return Producing(name, answer.int64(), answer.int16())
            await asyncio.sleep(0.05)


async def with_partitions(peer: WireClient, producer: Producing, *places: tuple[str, list[int]]) -> None:
    """Put partitions into the transaction."""
    body = Writer().string(producer.name).int64(producer.id).int16(producer.epoch)
    body.array(places, lambda each: body.string(each[0]).array(each[1], body.int32))
    async with asyncio.timeout(15):
        while True:
            codes = _codes(await peer.ask(ADD_PARTITIONS, 0, body))
            if not codes & _AGAIN:
                assert codes == {Code.NONE}
                return
            await asyncio.sleep(0.05)


def _codes(answer: Reader) -> set[int]:
    answer.int32()
    found = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16()))))
    return {code for _, parts in found for _, code in parts}


async def written(
    peer: WireClient, producer: Producing, topic: str, *timestamps: int, first: int = 0, partition: int = 0
) -> None:
    """Write a batch in the transaction, a record for each timestamp, the first with the sequence number `first`."""
    batch = encode_batch(
        [Record(offset, timestamp, b"k", b"v") for offset, timestamp in enumerate(timestamps)],
        attributes=TRANSACTIONAL,
        producer_id=producer.id,
        producer_epoch=producer.epoch,
        base_sequence=first,
    )
    body = produce(topic, batch, partition=partition, transactional_id=producer.name)
    ((code, _),) = produced(await peer.ask(PRODUCE, 3, body))
    assert code == Code.NONE


async def ended(peer: WireClient, producer: Producing, *, commit: bool) -> None:
    """Commit or abort."""
    body = Writer().string(producer.name).int64(producer.id).int16(producer.epoch).boolean(commit)
    answer = await peer.ask(END_TXN, 0, body)
    answer.int32()
    assert answer.int16() == Code.NONE
