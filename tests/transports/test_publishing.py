"""What a producer promises."""

import asyncio

import pytest

from octopus.errors import RecordTooLarge, TopicNotFound
from octopus.events import Published, TopicPartition
from octopus.transports.base import Admin, Outgoing, Producer, Transport

from .conftest import Join

# partitions of 12 as the Java client computes them: (murmur2(key) & 0x7fffffff) % 12
MURMUR2 = {b"": 9, b"a": 6, b"ab": 9, b"abc": 11, b"abcd": 3, b"key-1": 5, "ключ".encode(): 4}


async def test_send_returns_where_the_record_was_stored(producer: Producer, topic: str) -> None:
    assert await producer.send(Outgoing(topic, b"x", partition=2)) == Published(topic, 2, 0)
    assert await producer.send(Outgoing(topic, b"y", partition=2)) == Published(topic, 2, 1)


async def test_many_messages_keep_their_order_per_partition_and_know_their_offsets(
    join: Join, producer: Producer, topic: str
) -> None:
    messages = [Outgoing(topic, b"%d" % number, b"key-%d" % (number % 13)) for number in range(2000)]
    published = await producer.send_many(messages)
    member = await join(topic, topic)
    await member.until(lambda: member.count == 2000)
    for message, place in zip(messages, published, strict=True):
        stored = member.records[TopicPartition(place.topic, place.partition)][place.offset]
        assert (stored.offset, stored.key, stored.value) == (place.offset, message.key, message.value)
    for partition, records in member.records.items():
        numbers = [int(record.value or b"") for record in records]
        assert numbers == sorted(numbers), f"{partition} is out of order"


async def test_messages_to_several_topics_can_be_mixed(admin: Admin, producer: Producer, topic: str) -> None:
    other = f"{topic}-other"
    await admin.create_topic(other)
    published = await producer.send_many(
        [Outgoing(topic, b"1", partition=0), Outgoing(other, b"2"), Outgoing(topic, b"3", partition=0)]
    )
    assert published == [Published(topic, 0, 0), Published(other, 0, 0), Published(topic, 0, 1)]


async def test_concurrent_sends_all_arrive_in_the_order_they_were_made(
    join: Join, producer: Producer, topic: str
) -> None:
    published = await asyncio.gather(*(producer.send(Outgoing(topic, b"%d" % n, partition=1)) for n in range(300)))
    assert [place.offset for place in published] == list(range(300))
    member = await join(topic, topic)
    await member.until(lambda: member.count == 300)
    assert member.values() == [b"%d" % number for number in range(300)]


async def test_keys_choose_the_partition_that_every_kafka_client_chooses(
    admin: Admin, producer: Producer, fresh: str
) -> None:
    from aiokafka.partitioner import murmur2

    await admin.create_topic(fresh, partitions=12)
    for key in MURMUR2:
        published = await producer.send(Outgoing(fresh, b"x", key))
        assert published.partition == (murmur2(key) & 0x7FFFFFFF) % 12, key


async def test_messages_without_a_key_use_all_partitions_in_the_long_run(producer: Producer, topic: str) -> None:
    used = {(await producer.send(Outgoing(topic, b"x"))).partition for _ in range(9)}
    assert used == {0, 1, 2}


async def test_a_message_with_neither_key_nor_value_is_stored(producer: Producer, topic: str) -> None:
    assert (await producer.send(Outgoing(topic, None))).offset == 0


async def test_an_unknown_topic_is_an_error(producer: Producer, topic: str, fresh: str) -> None:
    with pytest.raises(TopicNotFound, match="unknown"):
        await producer.send(Outgoing(f"{fresh}-unknown", b"x"))
    with pytest.raises(TopicNotFound):
        await producer.send_many([Outgoing(f"{fresh}-unknown", b"x")])


async def test_an_unknown_partition_is_an_error(producer: Producer, topic: str) -> None:
    with pytest.raises(TopicNotFound, match="3 partitions"):
        await producer.send(Outgoing(topic, b"x", partition=9))


async def test_a_record_that_is_too_large_is_refused_and_the_producer_goes_on(producer: Producer, topic: str) -> None:
    with pytest.raises(RecordTooLarge, match="reference"):
        await producer.send(Outgoing(topic, bytes(2_000_000), partition=0))
    assert await producer.send(Outgoing(topic, b"small", partition=0)) == Published(topic, 0, 0)


async def test_one_message_that_cannot_be_stored_does_not_keep_the_others_from_it(
    admin: Admin, producer: Producer, topic: str
) -> None:
    messages = [
        Outgoing(topic, b"1", partition=1),
        Outgoing(topic, bytes(2_000_000), partition=1),
        Outgoing(topic, b"2", partition=7),
        Outgoing(topic, b"3", partition=1),
    ]
    with pytest.raises((RecordTooLarge, TopicNotFound)):
        await producer.send_many(messages)
    place = TopicPartition(topic, 1)
    assert await admin.offsets([place], "latest") == {place: 2}


async def test_nothing_to_send_is_nothing_sent(producer: Producer) -> None:
    assert await producer.send_many([]) == []


async def test_stopping_delivers_what_is_queued(transport: Transport, admin: Admin, topic: str) -> None:
    producer = transport.producer()
    await producer.start()
    sending = [asyncio.create_task(producer.send(Outgoing(topic, b"x", partition=0))) for _ in range(50)]
    await asyncio.sleep(0)
    await producer.stop()
    assert sorted([place.offset for place in await asyncio.gather(*sending)]) == list(range(50))
