"""Records that are refused, on either broker with the same codes, and the records to blame where they are named."""

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from octopus.broker.batch import Record, checksum_of, encode_batch
from octopus.broker.codecs import GZIP, LZ4, SNAPPY, ZSTD
from octopus.broker.codes import Code
from octopus.broker.wire import Reader, Writer
from octopus.transports.broker_codecs import codecs
from tests.broker.requests_and_answers import FETCH, INIT_PRODUCER_ID, PRODUCE, fetch, fetched, produce
from tests.broker.topics_on_either import find_coordinator, fresh, make_topic
from tests.broker.wire_client import WireClient

NOW = int(time.time() * 1000)
HOUR = 3_600_000


def records(*timestamps: int, keys: tuple[bytes | None, ...] = ()) -> list[Record]:
    keys = keys or (b"k",) * len(timestamps)
    return [
        Record(offset, timestamp, key, b"v" * 20)
        for offset, (timestamp, key) in enumerate(zip(timestamps, keys, strict=True))
    ]


def patched(batch: bytes, at: int, layout: str, *values: int) -> bytes:
    """Return a batch with other bytes somewhere, and a checksum that fits."""
    data = bytearray(batch)
    struct.pack_into(layout, data, at, *values)
    struct.pack_into(">I", data, 17, checksum_of(memoryview(data)))
    return bytes(data)


def plain(count: int = 3) -> bytes:
    return encode_batch(records(*[NOW] * count))


def counted(batch: bytes, count: int) -> bytes:
    return patched(patched(batch, 57, ">i", count), 23, ">i", count - 1)


@dataclass(frozen=True)
class Refused:
    """A batch, and how it is answered."""

    batch: Callable[[], bytes]
    code: int
    records: tuple[int, ...] = ()
    config: tuple[tuple[str, str], ...] = ()


COMPACTED = (("cleanup.policy", "compact"),)
LIMITED = (("message.timestamp.before.max.ms", str(HOUR)),)

CASES = {
    "a record without a key for a compacted topic": Refused(
        lambda: encode_batch(records(NOW, NOW, NOW, keys=(b"k", None, b"k"))), Code.INVALID_RECORD, (1,), COMPACTED
    ),
    "the same, compressed": Refused(
        lambda: encode_batch(records(NOW, NOW, keys=(None, None)), attributes=1), Code.INVALID_RECORD, (0, 1), COMPACTED
    ),
    "more records announced than there are": Refused(lambda: counted(plain(), 5), Code.INVALID_RECORD),
    "fewer records announced than there are": Refused(lambda: counted(plain(), 2), Code.INVALID_RECORD),
    "more offsets than records": Refused(lambda: patched(plain(), 23, ">i", 5), Code.INVALID_RECORD),
    "a base offset other than 0": Refused(lambda: struct.pack(">q", 7) + plain()[8:], Code.INVALID_RECORD),
    "a time in two days": Refused(lambda: encode_batch(records(NOW, NOW + 48 * HOUR)), Code.INVALID_TIMESTAMP, (1,)),
    "milliseconds taken for seconds": Refused(lambda: encode_batch(records(NOW * 1000)), Code.INVALID_TIMESTAMP, (0,)),
    "a time before what the topic takes": Refused(
        lambda: encode_batch(records(NOW - 2 * HOUR, NOW)), Code.INVALID_TIMESTAMP, (0,), LIMITED
    ),
}


def result(answer: Reader) -> tuple[int, tuple[int, ...]]:
    """Return the code and the records to blame of a Produce 8 answer for one partition."""

    def part() -> tuple[int, tuple[int, ...]]:
        answer.int32()
        code = answer.int16()
        answer.int64(), answer.int64(), answer.int64()
        blamed = answer.array(lambda: (answer.int32(), answer.nullable_string()))
        message = answer.nullable_string()
        assert all(sentence for _, sentence in blamed)
        assert message or not blamed
        return code, tuple(number for number, _ in blamed)

    [(_, [found])] = answer.array(lambda: (answer.string(), answer.array(part)))
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_is_refused_is_refused_with_the_code_and_the_records_of_kafka(
    peer: WireClient, case: Refused
) -> None:
    topic = fresh("refused")
    await make_topic(peer, topic, config=dict(case.config))
    assert result(await peer.ask(PRODUCE, 8, produce(topic, case.batch()))) == (case.code, case.records)
    assert fetched(await peer.ask(FETCH, 4, fetch(topic)))[0][2] == b"", "some of it was stored"


TAKEN = {
    "no time at all": lambda: encode_batch(records(-1, -1)),
    "the year 1970": lambda: encode_batch(records(0)),
    "half an hour ahead": lambda: encode_batch(records(NOW + HOUR // 2)),
    "gzip": lambda: encode_batch(records(NOW, NOW), attributes=1),
    "lengths of one, two and three bytes": lambda: encode_batch(
        [Record(offset, NOW, b"k", bytes(size)) for offset, size in enumerate((0, 50, 70, 8_000, 9_000, 100_000))]
    ),
}


@pytest.mark.parametrize("batch", TAKEN.values(), ids=TAKEN)
async def test_what_is_right_is_taken(peer: WireClient, batch: Callable[[], bytes]) -> None:
    topic = fresh("taken")
    await make_topic(peer, topic)
    assert result(await peer.ask(PRODUCE, 8, produce(topic, batch()))) == (Code.NONE, ())


def compressed(codec: int, count: int = 50, spoil: Callable[[bytes], bytes] = bytes) -> bytes:
    """Return a batch with its records in a codec, spoilt afterwards."""
    plain = encode_batch(records(*[NOW] * count))
    body = spoil(codecs()[codec].compress(plain[61:], None))
    sized = patched(plain[:61] + body, 8, ">i", 61 + len(body) - 12)
    return patched(sized, 21, ">h", codec)


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "another head": lambda body: b"\x55" * 4 + body[4:],
    "a checksum that is wrong": lambda body: body[:-6] + b"\x55" * 3 + body[-3:],
    "cut off": lambda body: body[:-10],
    "half of it": lambda body: body[: len(body) // 2],
}
CODECS = {"gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
async def test_what_cannot_be_decompressed_is_refused(
    peer: WireClient, codec: int, spoil: Callable[[bytes], bytes]
) -> None:
    topic = fresh("broken")
    await make_topic(peer, topic)
    broken = compressed(codec, spoil=spoil)
    assert result(await peer.ask(PRODUCE, 8, produce(topic, broken))) == (Code.UNKNOWN_SERVER_ERROR, ())
    assert fetched(await peer.ask(FETCH, 4, fetch(topic)))[0][2] == b""
    assert result(await peer.ask(PRODUCE, 8, produce(topic, compressed(codec)))) == (Code.NONE, ())


@pytest.mark.parametrize("codec", [5, 6, 7])
async def test_a_codec_that_is_none_is_refused(peer: WireClient, codec: int) -> None:
    topic = fresh("broken")
    await make_topic(peer, topic)
    broken = patched(compressed(GZIP), 21, ">h", codec)
    assert result(await peer.ask(PRODUCE, 8, produce(topic, broken)))[0] == Code.UNKNOWN_SERVER_ERROR


@pytest.mark.parametrize(("version", "code"), [(3, 76), (6, 76), (7, 0)])
async def test_zstd_is_taken_from_clients_that_can_know_of_it(peer: WireClient, version: int, code: int) -> None:
    topic = fresh("zstd")
    await make_topic(peer, topic)
    answer = await peer.ask(PRODUCE, version, produce(topic, compressed(ZSTD)))
    assert (answer.int32(), answer.string(), answer.int32(), answer.int32()) == (1, topic, 1, 0)
    assert answer.int16() == code


async def test_a_producer_with_an_open_transaction_writes_nothing_outside_it(peer: WireClient) -> None:
    topic, name = fresh("outside"), fresh("transaction")
    await make_topic(peer, topic)
    await find_coordinator(peer, name, is_transaction=True)
    async with asyncio.timeout(15):
        while True:
            answer = await peer.ask(INIT_PRODUCER_ID, 1, Writer().string(name).int32(60_000))
            answer.int32()
            if answer.int16() == Code.NONE:
                break
            await asyncio.sleep(0.05)
    producer, epoch = answer.int64(), answer.int16()
    added = Writer().string(name).int64(producer).int16(epoch).int32(1).string(topic).int32(1).int32(0)
    await peer.ask(24, 0, added)

    def batch(first: int, attributes: int) -> bytes:
        place = {"producer_id": producer, "producer_epoch": epoch, "base_sequence": first}
        return encode_batch(records(NOW), attributes=attributes, **place)

    inside = produce(topic, batch(0, 0x10), transactional_id=name)
    assert result(await peer.ask(PRODUCE, 8, inside))[0] == Code.NONE
    assert result(await peer.ask(PRODUCE, 8, produce(topic, batch(1, 0))))[0] == Code.INVALID_TXN_STATE
