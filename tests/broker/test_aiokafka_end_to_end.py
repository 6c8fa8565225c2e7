"""A real client, end to end, on a broker in a thread with a data directory."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, ProducerFenced, TopicAlreadyExistsError
from aiokafka.record.util import calc_crc32c

from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.thread import BrokerThread


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    with make(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def make(directory: Path) -> BrokerThread:
    settings = BrokerSettings(maintenance_interval=0.2)
    return BrokerThread(directory, settings, StorageSettings(durability="os"), checksum=calc_crc32c)


@asynccontextmanager
async def producing(broker: BrokerThread, **settings: object) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, **settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consuming(broker: BrokerThread, *topics: str, **settings: object) -> AsyncIterator[AIOKafkaConsumer]:
    defaults = {"auto_offset_reset": "earliest", "session_timeout_ms": 6000, "heartbeat_interval_ms": 200}
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=broker.address, **(defaults | settings))
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def administering(broker: BrokerThread) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def read(consumer: AIOKafkaConsumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with asyncio.timeout(8):
        while len(values) < count:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [record.value for record in records]
    return values


async def read_all(broker: BrokerThread, topic: str, **settings: object) -> list[bytes]:
    """Read a single partition from its beginning to what is its end now."""
    async with consuming(broker, **settings) as consumer:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        values: list[bytes] = []
        async with asyncio.timeout(8):
            while await consumer.position(place) < end:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    values += [record.value for record in records]
        return values


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_arrives_in_order(broker: BrokerThread, codec: str | None) -> None:
    topic = f"codec-{codec}"
    values = [b"%d" % i * 20 for i in range(500)]
    async with producing(broker, compression_type=codec, enable_idempotence=True) as producer:
        sent = await asyncio.gather(*[await producer.send(topic, value, key=b"k") for value in values])
        assert [each.offset for each in sent] == list(range(500))
    assert await read_all(broker, topic) == values


async def test_a_group_divides_partitions_and_hands_them_over_when_a_member_leaves(broker: BrokerThread) -> None:
    async with administering(broker) as admin:
        await admin.create_topics([NewTopic("shared", 4, 1)])
    async with consuming(broker, "shared", group_id="team") as first:
        await until(lambda: len(first.assignment()) == 4)
        async with consuming(broker, "shared", group_id="team") as second:
            await until(lambda: len(first.assignment()) == len(second.assignment()) == 2)
            assert first.assignment().isdisjoint(second.assignment())
            async with administering(broker) as admin:
                [described] = await admin.describe_consumer_groups(["team"])
            assert described.groups[0][2] == "Stable"
            assert len(described.groups[0][5]) == 2
        await until(lambda: len(first.assignment()) == 4)


async def test_a_group_goes_on_where_it_committed_with_its_note(broker: BrokerThread) -> None:
    place = TopicPartition("committed", 0)
    async with producing(broker) as producer:
        for number in range(10):
            await producer.send_and_wait("committed", b"%d" % number)
    async with consuming(broker, "committed", group_id="reader", enable_auto_commit=False) as consumer:
        await read(consumer, 10)
        await consumer.commit({place: (4, "hello")})
    async with consuming(broker, "committed", group_id="reader", enable_auto_commit=False) as consumer:
        assert (await read(consumer, 6))[0] == b"4"
    async with administering(broker) as admin:
        offsets = await admin.list_consumer_group_offsets("reader")
        assert offsets[place] == (4, "hello")


async def test_read_committed_sees_only_what_was_committed(broker: BrokerThread) -> None:
    async with producing(broker, transactional_id="writer") as producer:
        async with producer.transaction():
            await producer.send("txn", b"good")
        await producer.begin_transaction()
        await producer.send_and_wait("txn", b"bad")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send("txn", b"fine")
    assert await read_all(broker, "txn", isolation_level="read_committed") == [b"good", b"fine"]
    assert await read_all(broker, "txn") == [b"good", b"bad", b"fine"]


async def test_offsets_sent_in_a_transaction_count_only_if_it_commits(broker: BrokerThread) -> None:
    place = TopicPartition("source", 0)
    async with producing(broker, transactional_id="mover") as producer:
        await producer.client._wait_on_metadata("source")
        async with consuming(broker, group_id="moving") as consumer:
            consumer.assign([place])
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction({place: 3}, "moving")
            await producer.abort_transaction()
            assert await consumer.committed(place) is None
            async with producer.transaction():
                await producer.send_offsets_to_transaction({place: 5}, "moving")
            assert await consumer.committed(place) == 5


async def test_a_second_producer_with_the_same_id_fences_the_first(broker: BrokerThread) -> None:
    async with producing(broker, transactional_id="twin") as first:
        await first.begin_transaction()
        await first.send_and_wait("twins", b"first")
        async with producing(broker, transactional_id="twin") as second:
            async with second.transaction():
                await second.send_and_wait("twins", b"second")
            with pytest.raises((ProducerFenced, KafkaError)):
                await first.send_and_wait("twins", b"late")
    assert await read_all(broker, "twins", isolation_level="read_committed") == [b"second"]


async def test_topics_are_administered(broker: BrokerThread) -> None:
    async with administering(broker) as admin:
        await admin.create_topics([NewTopic("kept", 2, 1, topic_configs={"retention.ms": "12345"})])
        with pytest.raises(TopicAlreadyExistsError):
            raise_codes(await admin.create_topics([NewTopic("kept", 2, 1)]))
        await admin.create_partitions({"kept": NewPartitions(total_count=5)})
        [described] = await admin.describe_topics(["kept"])
        assert len(described["partitions"]) == 5
        await admin.delete_topics(["kept"])
        assert "kept" not in await admin.list_topics()


async def test_the_ends_and_the_record_at_a_time_are_found(broker: BrokerThread) -> None:
    place, start = TopicPartition("timed", 0), int(time.time() * 1000) - 60_000
    async with producing(broker) as producer:
        batch = producer.create_batch()
        for second in range(10):
            batch.append(key=None, value=b"x", timestamp=start + second * 1000)
        await (await producer.send_batch(batch, "timed", partition=0))
    async with consuming(broker) as consumer:
        assert await consumer.beginning_offsets([place]) == {place: 0}
        assert await consumer.end_offsets([place]) == {place: 10}
        assert (await consumer.offsets_for_times({place: start + 4500}))[place].offset == 5
        assert (await consumer.offsets_for_times({place: start + 99_000}))[place] is None


async def test_records_commits_and_transactions_survive_a_restart(tmp_path: Path) -> None:
    place = TopicPartition("lasting", 0)
    with make(tmp_path) as broker:
        async with producing(broker, transactional_id="w") as producer:
            async with producer.transaction():
                await producer.send_and_wait("lasting", b"kept")
            await producer.begin_transaction()
            await producer.send_and_wait("lasting", b"open")
        async with consuming(broker, group_id="g") as consumer:
            consumer.assign([place])
            await consumer.commit({place: 1})
    with make(tmp_path) as broker:
        assert await read_all(broker, "lasting", isolation_level="read_committed") == [b"kept"]
        async with consuming(broker, group_id="g") as consumer:
            assert await consumer.committed(place) == 1


def raise_codes(answer: object) -> None:
    from aiokafka.errors import for_code

    for _, code, message in answer.topic_errors:
        if code:
            raise for_code(code)(message)


async def until(condition: object, timeout: float = 8.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)
