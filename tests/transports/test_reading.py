"""What a consumer promises about records and offsets, whichever transport it is."""

import asyncio
import time

import pytest

from octopus.errors import TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Chunk, Commit, Outgoing, Producer, Transport

from .conftest import Join
from .engines import CONSUMERS
from .members import Member

pytestmark = pytest.mark.parametrize("transport", CONSUMERS, indirect=True)


def numbered(topic: str, count: int, partition: int = 0) -> list[Outgoing]:
    return [Outgoing(topic, b"%d" % number, partition=partition) for number in range(count)]


async def test_records_come_in_order_with_everything_they_were_published_with(
    join: Join, producer: Producer, topic: str
) -> None:
    stamp = int(time.time()) * 1000 + 123  # of today: a cluster deletes what is older than its retention
    headers = [("a", b"\x00\xff"), ("a", None), ("b", b"")]
    await producer.send_many(
        [
            Outgoing(topic, b"first", b"key", headers, 1, stamp),
            Outgoing(topic, None, b"tombstone", partition=1),
            Outgoing(topic, b"", None, partition=1),
        ]
    )
    member = await join(topic, topic)
    await member.until(lambda: member.count == 3)
    first, tombstone, empty = member.records[TopicPartition(topic, 1)]
    assert (first.offset, first.timestamp, first.key, first.value) == (0, stamp, b"key", b"first")
    assert [(name, value) for name, value in first.headers] == headers
    assert (tombstone.key, tombstone.value) == (b"tombstone", None)
    assert (empty.offset, empty.key, empty.value) == (2, None, b"")
    assert not empty.headers


async def test_a_fetch_with_nothing_to_read_returns_after_its_timeout(join: Join, topic: str) -> None:
    member = await join(topic, topic)
    started = time.monotonic()
    assert await member.turn(timeout=0.2) == []
    assert 0.15 < time.monotonic() - started < 2


async def test_a_fetch_ends_as_soon_as_a_record_arrives(join: Join, producer: Producer, topic: str) -> None:
    member = await join(topic, topic)
    fetching = asyncio.create_task(member.turn(timeout=15))
    await producer.send(Outgoing(topic, b"x"))
    started = time.monotonic()
    assert await fetching
    assert time.monotonic() - started < 5


async def test_a_fetch_returns_at_most_max_records_and_goes_on_where_it_stopped(
    join: Join, producer: Producer, topic: str
) -> None:
    await producer.send_many(numbered(topic, 100))
    member = await join(topic, topic)
    sizes = []
    while member.count < 100:
        for chunk in await member.turn(max_records=7):
            assert isinstance(chunk, Chunk)
            assert chunk.next_offset == chunk.records[-1].offset + 1
            sizes.append(len(chunk.records))
    assert max(sizes) == 7
    assert member.values() == [b"%d" % number for number in range(100)]


async def test_a_fetch_ends_behind_the_record_that_makes_it_max_bytes(
    join: Join, producer: Producer, topic: str
) -> None:
    for number in range(20):  # in batches of their own, of which a fetch may bring one more
        await producer.send(Outgoing(topic, bytes(10_000), partition=number % 2))
    member = await join(topic, topic)
    while member.count < 20:
        turn = await member.turn(max_bytes=25_000)
        assert sum(len(chunk.records) for chunk in turn if isinstance(chunk, Chunk)) <= 3
    assert [len(records) for records in member.records.values()] == [10, 10]


async def test_partitions_that_are_not_named_keep_what_was_prefetched(
    join: Join, producer: Producer, topic: str
) -> None:
    for number in range(3):
        await producer.send_many(numbered(topic, 50, number))
    member = await join(topic, topic)
    one, two = TopicPartition(topic, 1), TopicPartition(topic, 2)
    await member.until(lambda: len(member.values(one)) == 50, only={one}, max_records=10)
    assert set(member.records) == {one}
    await member.until(lambda: member.count == 150, max_records=10)
    for partition in (TopicPartition(topic, 0), one, two):
        assert member.values(partition) == [b"%d" % number for number in range(50)]


async def test_a_fetch_that_names_no_partition_reads_nothing(join: Join, producer: Producer, topic: str) -> None:
    await producer.send_many(numbered(topic, 5))
    member = await join(topic, topic)
    assert await member.turn(only=(), timeout=0.2) == []
    await member.until(lambda: member.count == 5)


async def test_cancelling_fetches_loses_nothing(join: Join, producer: Producer, topic: str) -> None:
    member = await join(topic, topic)

    async def publish() -> None:
        for start in range(0, 200, 10):
            await producer.send_many([Outgoing(topic, b"%d" % n, partition=0) for n in range(start, start + 10)])

    publishing = asyncio.create_task(publish())
    for _ in range(60):
        fetching = asyncio.create_task(member.turn(max_records=3, timeout=1.0))
        await asyncio.wait([fetching], timeout=0.002)
        fetching.cancel()
        await asyncio.wait([fetching])
    await publishing
    await member.until(lambda: member.count >= 200)
    assert member.values() == [b"%d" % number for number in range(200)]


async def test_seeking_moves_the_position_and_drops_what_was_fetched(
    join: Join, producer: Producer, topic: str
) -> None:
    await producer.send_many(numbered(topic, 50))
    member = await join(topic, topic)
    await member.until(lambda: member.count >= 10, max_records=10)
    partition = TopicPartition(topic, 0)
    await member.consumer.seek({partition: 45})
    member.records.clear()
    await member.until(lambda: member.count == 5)
    assert member.values() == [b"45", b"46", b"47", b"48", b"49"]
    await member.consumer.seek({partition: 0})
    member.records.clear()
    await member.until(lambda: member.count == 50, max_records=30)


async def test_offsets_resolve_ends_and_times(join: Join, producer: Producer, topic: str) -> None:
    base = int(time.time()) - 3600  # of today: a cluster deletes what is older than its retention
    times = [(base + after) * 1000 for after in (0, 10, 20)]
    await producer.send_many([Outgoing(topic, b"x", partition=0, timestamp=each) for each in times])
    member = await join(topic, topic)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = member.consumer
    assert await consumer.offsets({zero, one}, "earliest") == {zero: 0, one: 0}
    assert await consumer.offsets({zero, one}, "latest") == {zero: 3, one: 0}
    assert await consumer.offsets({zero, one}, base + 10.0) == {zero: 1, one: 0}
    assert await consumer.offsets({zero}, base + 10.001) == {zero: 2}
    assert await consumer.offsets({zero}, base + 86_400.0) == {zero: 3}


async def test_the_end_is_known_after_a_fetch_without_asking(join: Join, producer: Producer, topic: str) -> None:
    await producer.send_many(numbered(topic, 5))
    member = await join(topic, topic)
    await member.until(lambda: member.count == 5)
    assert member.consumer.end_offset(TopicPartition(topic, 0)) == 5
    assert member.consumer.known_partitions() == {TopicPartition(topic, number) for number in range(3)}


async def test_commits_with_metadata_are_read_back_and_nothing_is_none(join: Join, topic: str) -> None:
    member = await join(topic, topic)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await member.consumer.commit({zero: Commit(17, "settled: 19-21 ✓")})
    assert await member.consumer.committed({zero, one}) == {zero: Commit(17, "settled: 19-21 ✓"), one: None}
    await member.consumer.commit({zero: Commit(18), one: Commit(0)})
    assert await member.consumer.committed([zero, one]) == {zero: Commit(18), one: Commit(0)}
    await member.consumer.commit({})


async def test_a_value_of_a_megabyte_comes_through(join: Join, producer: Producer, topic: str) -> None:
    value = bytes(range(256)) * 3906
    await producer.send(Outgoing(topic, value))
    member = await join(topic, topic)
    await member.until(lambda: member.count == 1)
    assert member.values() == [value]


async def test_a_topic_that_does_not_exist_is_an_error(transport: Transport, fresh: str) -> None:
    if transport.name == "memory":
        consumer = transport.consumer(fresh, [fresh])
    else:
        consumer = transport.consumer(fresh, [fresh], session_timeout=6.0)
    with pytest.raises(TopicNotFound, match=fresh):
        await consumer.start(Member(transport, fresh, [fresh]))
    await consumer.stop()


async def test_a_position_outside_the_log_is_reported_and_never_reset(
    join: Join, producer: Producer, admin: Admin, topic: str
) -> None:
    for number in range(3):
        await producer.send_many(numbered(topic, 5, number))
    member = await join(topic, topic)
    wrong = TopicPartition(topic, 0)
    await member.consumer.seek({wrong: 99})
    await member.until(lambda: wrong in member.unreadable and member.count == 10)
    assert type(member.unreadable[wrong].error).__name__ == "OffsetOutOfRange"
    assert str(wrong) in str(member.unreadable[wrong].error)
    await member.consumer.seek({wrong: 3})
    await member.until(lambda: member.count == 12)
