"""The setting `compression.type`: what arrives in another codec is stored in the topic's, on either broker."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from aiokafka.record.util import calc_crc32c

from octopus.broker.batch import LOG_APPEND_TIME, Record, decode_records, encode_batch, read_header
from octopus.broker.codes import Code
from octopus.broker.log import Admitted, partition
from octopus.broker.server import Broker
from octopus.broker.storage import Storage
from octopus.transports.broker_codecs import codecs
from tests.broker.api.test_refused_records import CODECS, NOW, compressed, records, result
from tests.broker.requests_and_answers import (
    API_VERSIONS,
    CREATE_TOPICS,
    FETCH,
    PRODUCE,
    create_topic,
    fetch,
    fetched,
    produce,
)
from tests.broker.topics_on_either import fresh, make_topic
from tests.broker.wire_client import WireClient, connected, eventually

SENT = {"uncompressed": 0} | CODECS
WANTED = {"producer": None} | SENT


def sent(codec: int, **header: int) -> bytes:
    """Return a batch in a codec."""
    return encode_batch(
        records(*[NOW + number for number in range(40)]),
        attributes=codec,
        codecs=codecs(),
        checksum=calc_crc32c,
        **header,
    )


async def stored(peer: WireClient, topic: str) -> list[bytes]:
    """Return the batches of a topic."""
    data = fetched(await peer.ask(FETCH, 4, fetch(topic)))[0][2]
    batches = []
    while data:
        size = read_header(data).size
        batches.append(data[:size])
        data = data[size:]
    return batches


@pytest.mark.parametrize("wanted", WANTED)
async def test_what_is_stored_has_the_topics_codec_and_is_otherwise_what_was_sent(
    peer: WireClient, wanted: str
) -> None:
    topic = fresh("compressed")
    await make_topic(peer, topic, config={"compression.type": wanted})
    batches = [
        sent(codec, producer_id=7_000_000 + number, producer_epoch=3, base_sequence=9)
        for number, codec in enumerate(SENT.values())
    ]
    for batch in batches:
        assert result(await peer.ask(PRODUCE, 8, produce(topic, batch))) == (Code.NONE, ())
    found = await stored(peer, topic)
    keep = WANTED[wanted]
    assert [read_header(each).codec for each in found] == [codec if keep is None else keep for codec in SENT.values()]
    for number, (before, after) in enumerate(zip(batches, found, strict=True)):
        header = read_header(before)
        expected = header._replace(base_offset=number * 40, epoch=0, length=0, crc=0, attributes=0)
        assert read_header(after)._replace(epoch=0, length=0, crc=0, attributes=0) == expected
        assert calc_crc32c(memoryview(after)[21:]) == read_header(after).crc
        assert _contents(after) == _contents(before)


def _contents(batch: bytes) -> list[Record]:
    first = read_header(batch).base_offset
    return [each._replace(offset=each.offset - first) for each in decode_records(batch, codecs=codecs())]


@pytest.mark.parametrize("wanted", ["gzip", "zstd"])
async def test_a_batch_that_is_sent_again_is_known_in_whatever_codec_it_is_stored(
    peer: WireClient, wanted: str
) -> None:
    topic = fresh("again")
    await make_topic(peer, topic, config={"compression.type": wanted})
    batch = sent(0, producer_id=7_100_000, producer_epoch=0, base_sequence=0)
    for _ in range(2):
        assert result(await peer.ask(PRODUCE, 8, produce(topic, batch))) == (Code.NONE, ())
    assert len(await stored(peer, topic)) == 1


async def test_what_becomes_too_large_by_it_is_refused(peer: WireClient) -> None:
    topic = fresh("large")
    await make_topic(peer, topic, config={"compression.type": "uncompressed", "max.message.bytes": "1000"})
    small = compressed(1, count=100)
    assert len(small) < 1000
    assert result(await peer.ask(PRODUCE, 8, produce(topic, small))) == (Code.MESSAGE_TOO_LARGE, ())


async def test_records_with_the_time_of_appending_are_compressed_too(peer: WireClient) -> None:
    topic = fresh("dated")
    await make_topic(peer, topic, config={"compression.type": "lz4", "message.timestamp.type": "LogAppendTime"})
    assert result(await peer.ask(PRODUCE, 8, produce(topic, sent(2)))) == (Code.NONE, ())
    (found,) = await stored(peer, topic)
    header = read_header(found)
    assert (header.codec, header.attributes & LOG_APPEND_TIME) == (3, LOG_APPEND_TIME)
    assert calc_crc32c(memoryview(found)[21:]) == header.crc


async def test_a_codec_is_written_with_the_level_that_the_topic_sets(peer: WireClient) -> None:
    sizes = {}
    for level in ("1", "9"):
        topic = fresh("level")
        await make_topic(peer, topic, config={"compression.type": "gzip", "compression.gzip.level": level})
        values = encode_batch([Record(n, NOW, None, b"%d of many" % (n * n)) for n in range(2000)])
        assert result(await peer.ask(PRODUCE, 8, produce(topic, values))) == (Code.NONE, ())
        sizes[level] = len((await stored(peer, topic))[0])
    assert sizes["9"] < sizes["1"]


@pytest.mark.parametrize(
    ("wanted", "code"), [("zstd", Code.INVALID_CONFIG), ("none", Code.INVALID_CONFIG), ("gzip", Code.NONE)]
)
async def test_a_codec_that_a_broker_cannot_write_is_refused_as_a_setting(wanted: str, code: Code) -> None:
    async with Broker(Storage.open(None)) as broker, connected(broker.address) as client:
        answer = await client.ask(CREATE_TOPICS, 2, create_topic("t", 1, {"compression.type": wanted}))
        answer.int32()
        ((_, found, _),) = answer.array(lambda: (answer.string(), answer.int16(), answer.nullable_string()))
        assert found == code


LONG: dict[str, Callable[[], bytes]] = {
    "many records": lambda: encode_batch(records(*[NOW] * 5000)),
    "many bytes": lambda: encode_batch([Record(0, NOW, None, bytes(600_000))]),
    "many bytes in few": lambda: encode_batch([Record(0, NOW, None, bytes(900_000))], attributes=1),
}


@pytest.mark.parametrize("large", LONG.values(), ids=LONG)
async def test_a_batch_that_takes_time_holds_up_nobody_else_and_is_not_overtaken(
    broker: Broker, client: WireClient, monkeypatch: pytest.MonkeyPatch, large: Callable[[], bytes]
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    began, may_end, admit = threading.Event(), threading.Event(), partition.admit

    def held(*arguments: object) -> Admitted:
        began.set()
        assert may_end.wait(30)
        return admit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(partition, "admit", held)
    try:
        batch = large()
        first = await client.put(PRODUCE, 8, produce("t", batch))
        second = await client.put(PRODUCE, 8, produce("t", encode_batch(records(NOW))))
        await eventually(began.is_set)
        async with connected(broker.address) as other, asyncio.timeout(10):
            await other.ask(API_VERSIONS, 0)
            body = produce("t", encode_batch(records(NOW)))
            assert result(await other.ask(PRODUCE, 8, body)) == (Code.NONE, ()), "also what another client writes there"
    finally:
        may_end.set()
    answered = [await client.take(), await client.take()]
    assert [correlation for correlation, _ in answered] == [first, second]
    assert [result(answer) for _, answer in answered] == [(Code.NONE, ())] * 2
    found = [read_header(each).count for each in await all_of(client)]
    assert found == [1, read_header(batch).count, 1]


async def all_of(client: WireClient) -> list[bytes]:
    """Return every batch of the topic, one a request."""
    batches, offset = [], 0
    while data := fetched(await client.ask(FETCH, 4, fetch("t", offset, max_bytes=1)))[0][2]:
        batches.append(data)
        offset = read_header(data).next_offset
    return batches
