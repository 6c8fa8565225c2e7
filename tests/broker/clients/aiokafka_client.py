"""aiokafka: administration, records, groups, transactions."""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import OffsetAndMetadata

from tests.broker.clients.checking import (
    HEARTBEAT_INTERVAL,
    SESSION_TIMEOUT,
    Target,
    check,
    companion,
    fresh,
    milliseconds_ago,
)


@check(quick_on_kafka=True)
async def admin_create_list_describe_delete(target: Target) -> None:
    async with _admin(target) as admin:
        topic = await _create(target, "admin", partitions=3)
        assert topic in await admin.list_topics()
        cluster = await admin.describe_cluster()
        assert len(cluster["brokers"]) >= 1
        assert cluster["cluster_id"]
        (configs,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        assert {entry[0] for entry in configs.resources[0][4]} >= {"retention.ms", "cleanup.policy"}
        await admin.delete_topics([topic])
        await _eventually(lambda: _is_gone(admin, topic), "the deleted topic is still listed")


@check(races=True, quick_on_kafka=True)
async def admin_groups(target: Target) -> None:
    topic, group = await _create(target, "described"), fresh("group")
    await _send(target, topic, [b"%d" % n for n in range(5)])
    async with _consumer(target, topic, group=group) as consumer, _admin(target) as admin:
        await _read(consumer, 5)
        await consumer.commit()
        assert group in {name for name, *_ in await admin.list_consumer_groups()}
        (response,) = await admin.describe_consumer_groups([group])
        ((error, name, state, _, _, members, *_),) = response.groups
        assert (error, name, state, len(members)) == (0, group, "Stable", 1)
        offsets = await admin.list_consumer_group_offsets(group)
        assert offsets[TopicPartition(topic, 0)].offset == 5


async def _compressed(target: Target, codec: str | None) -> None:
    topic = await _create(target, "codec")
    values = [b"value %d " % n * 10 for n in range(2000)]
    await _send(target, topic, values, compression_type=codec)
    records = await _read_topic(target, topic, 2000)
    assert [record.value for record in records] == values
    assert records[-1].offset == 1999


@check(quick_on_kafka=True)
async def compress_none(target: Target) -> None:
    await _compressed(target, None)


@check()
async def compress_gzip(target: Target) -> None:
    await _compressed(target, "gzip")


@check()
async def compress_snappy(target: Target) -> None:
    await _compressed(target, "snappy")


@check(quick_on_kafka=True)
async def compress_lz4(target: Target) -> None:
    await _compressed(target, "lz4")


@check()
async def compress_zstd(target: Target) -> None:
    await _compressed(target, "zstd")


@check(quick_on_kafka=True)
async def idempotent_produce(target: Target) -> None:
    topic = await _create(target, "idempotent")
    values = [b"%d" % n for n in range(1000)]
    await _send(target, topic, values, enable_idempotence=True)
    assert [record.value for record in await _read_topic(target, topic, 1000)] == values


@check(quick_on_kafka=True)
async def headers_key_timestamp(target: Target) -> None:
    topic = await _create(target, "headers", config={"retention.ms": "-1"})
    headers = [("a", b"1"), ("a", b"2"), ("empty", b"")]
    async with _producer(target) as producer:
        await producer.send_and_wait(topic, b"v", key=b"k", headers=headers, timestamp_ms=1_600_000_000_123)
        await producer.send_and_wait(topic, None, key=b"")
        await producer.send_and_wait(topic, b"", key=b"k")
    first, null_value, empty_value = await _read_topic(target, topic, 3)
    assert (first.key, first.value, list(first.headers)) == (b"k", b"v", headers)
    assert (first.timestamp, first.timestamp_type) == (1_600_000_000_123, 0)
    assert (null_value.key, null_value.value) == (b"", None)
    assert (empty_value.key, empty_value.value) == (b"k", b"")


@check(races=True, quick_on_kafka=True)
async def group_commit_restart(target: Target) -> None:
    topic, group = await _create(target, "committed"), fresh("group")
    await _send(target, topic, [b"%d" % n for n in range(300)])
    async with _consumer(target, topic, group=group) as consumer:
        assert [int(record.value) for record in await _read(consumer, 300)] == list(range(300))
        await consumer.commit()
    await _send(target, topic, [b"%d" % n for n in range(300, 330)])
    partition = TopicPartition(topic, 0)
    async with _consumer(target, topic, group=group) as consumer:
        assert [int(record.value) for record in await _read(consumer, 30)] == list(range(300, 330))
        assert not await consumer.getmany(timeout_ms=300)
        await consumer.commit({partition: OffsetAndMetadata(42, "hello")})
        assert await consumer.committed(partition) == 42
    async with _admin(target) as admin:
        offsets = await admin.list_consumer_group_offsets(group)
        assert offsets[partition] == OffsetAndMetadata(42, "hello")


async def _rebalanced(target: Target, assignor: type) -> None:
    topic, group = await _create(target, "shared", partitions=4), fresh("group")
    strategy = {"partition_assignment_strategy": (assignor,)}
    async with _member(target, topic, group, **strategy) as first:
        await _eventually(lambda: len(first.assignment()) == 4, "the first member has not got all")
        async with _member(target, topic, group, **strategy) as second:
            await _eventually(
                lambda: len(first.assignment()) == len(second.assignment()) == 2, "the partitions are not split 2/2"
            )
            assert not first.assignment() & second.assignment()
        await _eventually(lambda: len(first.assignment()) == 4, "the first member has not got all back")


@check(limit=60, races=True, quick_on_kafka=True)
async def rebalance_range(target: Target) -> None:
    await _rebalanced(target, RangePartitionAssignor)


@check(limit=60, races=True)
async def rebalance_roundrobin(target: Target) -> None:
    await _rebalanced(target, RoundRobinPartitionAssignor)


@check(limit=60, races=True)
async def rebalance_sticky(target: Target) -> None:
    await _rebalanced(target, StickyPartitionAssignor)


@check(limit=70, races=True)
async def kill_member_session_timeout(target: Target) -> None:
    topic, group = await _create(target, "orphaned", partitions=4), fresh("group")
    async with _member(target, topic, group) as survivor:
        await _eventually(lambda: len(survivor.assignment()) == 4, "the survivor has not got all")
        victim = subprocess.Popen(companion("aiokafka", "member", target, topic, group))
        try:
            await _eventually(lambda: len(survivor.assignment()) == 2, "the victim has not got its half")
            await asyncio.sleep(1)  # let its heartbeats settle in
        finally:
            victim.kill()
            victim.wait()
        killed = time.monotonic()
        await _eventually(lambda: len(survivor.assignment()) == 4, "the survivor has not taken over", timeout=30)
        took = time.monotonic() - killed
    assert SESSION_TIMEOUT - 2 < took < SESSION_TIMEOUT + 5, f"takeover took {took:.1f} s"


async def member(target: Target, topic: str, group: str) -> None:
    """Be a member of a group until killed."""
    async with _member(target, topic, group):
        await asyncio.Event().wait()


@check(quick_on_kafka=True)
async def offsets_for_times_end_offsets(target: Target) -> None:
    topic = await _create(target, "times")
    partition, start = TopicPartition(topic, 0), milliseconds_ago(1000)
    async with _producer(target) as producer:
        for n in range(10):
            await producer.send_and_wait(topic, b"%d" % n, timestamp_ms=start + n * 1000)
    async with _consumer(target) as consumer:
        assert await consumer.end_offsets([partition]) == {partition: 10}
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        found = await consumer.offsets_for_times({partition: start + 4500})
        assert (found[partition].offset, found[partition].timestamp) == (5, start + 5000)
        assert await consumer.offsets_for_times({partition: start + 3_600_000}) == {partition: None}


@check(races=True, quick_on_kafka=True)
async def txn_commit_abort(target: Target) -> None:
    topic = await _create(target, "transactional")
    async with _producer(target, transactional_id=fresh("transactional")) as producer:
        async with producer.transaction():
            for value in (b"a", b"b"):
                await producer.send(topic, value)
        try:
            async with producer.transaction():
                await producer.send_and_wait(topic, b"x")
                raise LookupError
        except LookupError:
            pass
        async with producer.transaction():
            await producer.send(topic, b"c")
    committed = await _read_topic(target, topic, 3, isolation_level="read_committed")
    assert [record.value for record in committed] == [b"a", b"b", b"c"]
    everything = await _read_topic(target, topic, 4)
    assert [record.value for record in everything] == [b"a", b"b", b"x", b"c"]


@check(races=True, quick_on_kafka=True)
async def txn_send_offsets(target: Target) -> None:
    topic, group = await _create(target, "source"), fresh("group")
    partition = TopicPartition(topic, 0)
    await _send(target, topic, [b"%d" % n for n in range(10)])
    async with (
        _consumer(target, topic, group=group) as consumer,
        _producer(target, transactional_id=fresh("transactional")) as producer,
    ):
        await _read(consumer, 10)
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({partition: 10}, group)
        await producer.abort_transaction()
        assert await consumer.committed(partition) is None, "offsets of an aborted transaction show"
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({partition: 10}, group)
        await producer.commit_transaction()
        assert await _eventually_equal(lambda: consumer.committed(partition), 10)


@check()
async def big_1MB(target: Target) -> None:
    topic = await _create(target, "big")
    values = [os.urandom(1_000_000) for _ in range(10)]
    await _send(target, topic, values, max_request_size=1_048_588)
    records = await _read_topic(target, topic, 10)
    assert [hashlib.sha256(r.value).digest() for r in records] == [hashlib.sha256(v).digest() for v in values]


@check(auto_create=True)
async def auto_create(target: Target) -> None:
    topic = fresh("unknown")
    async with _producer(target) as producer:
        for n in range(5):
            await producer.send_and_wait(topic, b"%d" % n, key=b"%d" % n)
    assert len(await _read_topic(target, topic, 5)) == 5


@asynccontextmanager
async def _admin(target: Target) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=target.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _create(target: Target, stem: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
    topic = fresh(stem)
    async with _admin(target) as admin:
        response = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config or {})])
        assert [error[1] for error in response.topic_errors] == [0], response

        async def is_listed() -> bool:
            (described,) = await admin.describe_topics([topic])
            return len(described["partitions"]) == partitions

        await _eventually(is_listed, "the new topic is not listed")
    return topic


def _producer(target: Target, **settings: Any) -> Any:
    return AIOKafkaProducer(bootstrap_servers=target.bootstrap, **settings)


def _consumer(target: Target, *topics: str, group: str | None = None, **settings: Any) -> Any:
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=target.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=int(SESSION_TIMEOUT * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_INTERVAL * 1000),
        **settings,
    )


@asynccontextmanager
async def _member(target: Target, topic: str, group: str, **settings: Any) -> AsyncIterator[Any]:
    """Lend a group member that keeps asking for records, as an application does."""

    async def ask() -> None:
        while True:
            await member.getmany(timeout_ms=100)

    async with _consumer(target, topic, group=group, **settings) as member:
        asking = asyncio.create_task(ask())
        try:
            yield member
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def _send(target: Target, topic: str, values: Iterable[bytes], **settings: Any) -> None:
    async with _producer(target, **settings) as producer:
        await asyncio.gather(*[await producer.send(topic, value, partition=0) for value in values])


async def _read(consumer: Any, count: int, timeout: float = 20.0) -> list[Any]:
    records: list[Any] = []
    async with asyncio.timeout(timeout):
        while len(records) < count:
            for more in (await consumer.getmany(timeout_ms=200)).values():
                records.extend(more)
    assert len(records) == count, f"{len(records)} instead of {count} records"
    return records


async def _read_topic(target: Target, topic: str, count: int, **settings: Any) -> list[Any]:
    async with _consumer(target, **settings) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        records = await _read(consumer, count)
        assert not await consumer.getmany(timeout_ms=300), "more records than were sent"
        return records


async def _is_gone(admin: Any, topic: str) -> bool:
    return topic not in await admin.list_topics()


async def _eventually_equal(ask: Callable[[], Any], wanted: object) -> bool:
    await _eventually(lambda: _equals(ask, wanted), f"it did not become {wanted}")
    return True


async def _equals(ask: Callable[[], Any], wanted: object) -> bool:
    return bool(await ask() == wanted)


async def _eventually(condition: Callable[[], Any], otherwise: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        holds = condition()
        if await holds if asyncio.iscoroutine(holds) else holds:
            return
        assert time.monotonic() < deadline, f"{otherwise} (after {timeout:.0f} s)"
        await asyncio.sleep(0.05)
