"""kafka-python 3, and kafka-python 2 pinned to one broker version (it then negotiates nothing and sends what it likes)."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.structs import OffsetAndMetadata

from tests.broker.clients.checking import (
    HEARTBEAT_INTERVAL,
    SESSION_TIMEOUT,
    Target,
    check,
    eventually,
    fresh,
    milliseconds_ago,
)

OLDER = kafka.__version__.startswith("2.")
PINNED: dict[str, Any] = {"api_version": (3, 8, 1)} if OLDER else {}

# kafka-python 3.0.12 loses its assignment when a poll's time is up in the middle of joining a group, and then polls for
# ever without fetching (seen with Apache Kafka too). A poll returns at once when there are records.
POLL_MS = 3000


@check(quick_on_kafka=True)
def admin_topics(target: Target) -> None:
    admin = _admin(target)
    topic = _create(target, "admin", partitions=3)
    assert topic in admin.list_topics()
    cluster = admin.describe_cluster()
    assert len(cluster["brokers"]) >= 1
    assert cluster["cluster_id"]
    assert "retention.ms" in repr(_configs(admin, topic))
    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics(), 15, "the deleted topic is still listed")
    admin.close()


@check(races=True, quick_on_kafka=True)
def admin_groups(target: Target) -> None:
    admin = _admin(target)
    topic, group = _create(target, "described"), fresh("group")
    partition = TopicPartition(topic, 0)
    _send(target, topic, [b"%d" % n for n in range(5)])
    consumer = _consumer(target, topic, group=group)
    _read(consumer, 5)
    consumer.commit()
    if OLDER:
        assert group in {one[0] for one in admin.list_consumer_groups()}
        (described,) = admin.describe_consumer_groups([group])
        state, members = described.state, described.members
        offset = admin.list_consumer_group_offsets(group)[partition]
    else:
        assert group in {one["group_id"] for one in admin.list_groups()}
        described = admin.describe_groups([group])[group]
        state, members = described["group_state"], described["members"]
        offset = admin.list_group_offsets({group: None})[group][partition]
    assert (state, len(members)) == ("Stable", 1)
    assert offset.offset == 5
    consumer.close()
    admin.close()


def _compressed(target: Target, codec: str | None) -> None:
    topic = _create(target, "codec")
    values = [b"value %d " % n * 10 for n in range(2000)]
    _send(target, topic, values, compression_type=codec)
    records = _read_topic(target, topic, 2000)
    assert [record.value for record in records] == values
    assert records[-1].offset == 1999


@check()
def compress_none(target: Target) -> None:
    _compressed(target, None)


@check(quick_on_kafka=True)
def compress_gzip(target: Target) -> None:
    _compressed(target, "gzip")


@check()
def compress_snappy(target: Target) -> None:
    _compressed(target, "snappy")


@check()
def compress_lz4(target: Target) -> None:
    _compressed(target, "lz4")


@check()
def compress_zstd(target: Target) -> None:
    _compressed(target, "zstd")


@check(races=True, quick_on_kafka=True)
def group_commit_restart(target: Target) -> None:
    topic, group = _create(target, "committed"), fresh("group")
    partition = TopicPartition(topic, 0)
    _send(target, topic, [b"%d" % n for n in range(300)])
    first = _consumer(target, topic, group=group)
    assert [int(record.value) for record in _read(first, 300)] == list(range(300))
    first.commit()
    first.close(autocommit=False)
    _send(target, topic, [b"%d" % n for n in range(300, 330)])
    second = _consumer(target, topic, group=group)
    assert [int(record.value) for record in _read(second, 30)] == list(range(300, 330))
    assert not second.poll(timeout_ms=300)
    second.commit({partition: OffsetAndMetadata(42, "hello", -1)})
    committed = second.committed(partition, metadata=True)
    second.close(autocommit=False)
    assert (committed.offset, committed.metadata) == (42, "hello")


def _rebalanced(target: Target, assignor: type) -> None:
    topic, group = _create(target, "shared", partitions=4), fresh("group")
    strategy = {"partition_assignment_strategy": [assignor]}
    with _trickle(target, topic, 4), _member(target, topic, group, **strategy) as first:
        eventually(lambda: len(first()) == 4, 20, "the first member has not got all")
        with _member(target, topic, group, **strategy) as second:
            eventually(
                lambda: len(first()) == len(second()) == 2 and not first() & second(),
                20,
                "the partitions are not split 2/2",
            )
        eventually(lambda: len(first()) == 4, 20, "the first member has not got all back")


@check(limit=60, races=True)
def rebalance_range(target: Target) -> None:
    _rebalanced(target, RangePartitionAssignor)


@check(limit=60, races=True)
def rebalance_roundrobin(target: Target) -> None:
    _rebalanced(target, RoundRobinPartitionAssignor)


@check(limit=60, races=True, only="kafka-python-2")
def rebalance_sticky(target: Target) -> None:
    from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

    _rebalanced(target, StickyPartitionAssignor)


@check(limit=60, races=True, quick_on_kafka=True, only="kafka-python-3")
def rebalance_cooperative_sticky(target: Target) -> None:
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

    _rebalanced(target, CooperativeStickyAssignor)


@check(quick_on_kafka=True)
def offsets_for_times_end_offsets(target: Target) -> None:
    topic = _create(target, "times")
    partition, start = TopicPartition(topic, 0), milliseconds_ago(1000)
    producer = _producer(target)
    for n in range(10):
        producer.send(topic, b"%d" % n, partition=0, timestamp_ms=start + n * 1000).get(15)
    producer.close()
    consumer = _consumer(target)
    assert consumer.end_offsets([partition]) == {partition: 10}
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.offsets_for_times({partition: start + 4500})[partition].offset == 5
    assert consumer.offsets_for_times({partition: start + 3_600_000})[partition] is None
    consumer.close()


@check(races=True, quick_on_kafka=True)
def txn_commit_abort(target: Target) -> None:
    topic = _create(target, "transactional")
    producer = _producer(target, transactional_id=fresh("transactional"))
    producer.init_transactions()
    for values, commit in (([b"a", b"b"], True), ([b"x"], False), ([b"c"], True)):
        producer.begin_transaction()
        for value in values:
            producer.send(topic, value, partition=0)
        producer.flush(15)
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()
    committed = _read_topic(target, topic, 3, isolation_level="read_committed")
    assert [record.value for record in committed] == [b"a", b"b", b"c"]
    everything = _read_topic(target, topic, 4, isolation_level="read_uncommitted")
    assert [record.value for record in everything] == [b"a", b"b", b"x", b"c"]


@check(quick_on_kafka=True)
def headers_timestamp_idempotent(target: Target) -> None:
    topic = _create(target, "headers", config={"retention.ms": "-1"})
    headers = [("a", b"1"), ("a", b"2"), ("empty", b"")]
    producer = _producer(target, enable_idempotence=True)
    producer.send(topic, b"v", key=b"k", headers=headers, timestamp_ms=1_600_000_000_123).get(15)
    producer.send(topic, None, key=b"").get(15)
    futures = [producer.send(topic, b"%d" % n) for n in range(1000)]
    assert [future.get(15).offset for future in futures] == list(range(2, 1002))
    producer.close()
    first, null_value, *others = _read_topic(target, topic, 1002)
    assert (first.key, first.value, list(first.headers)) == (b"k", b"v", headers)
    assert (first.timestamp, first.timestamp_type) == (1_600_000_000_123, 0)
    assert (null_value.key, null_value.value) == (b"", None)
    assert [int(record.value) for record in others] == list(range(1000))


@check()
def big_1MB(target: Target) -> None:
    topic = _create(target, "big")
    values = [os.urandom(1_000_000) for _ in range(3)]  # its checksums are pure Python
    _send(target, topic, values, max_request_size=1_048_588)
    records = _read_topic(target, topic, len(values))
    assert [hashlib.sha256(r.value).digest() for r in records] == [hashlib.sha256(v).digest() for v in values]


def _admin(target: Target) -> Any:
    return KafkaAdminClient(bootstrap_servers=target.bootstrap, **PINNED)


def _configs(admin: Any, topic: str) -> object:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    return admin.describe_configs([resource]) if OLDER else admin.describe_configs([resource], config_filter="all")


def _create(target: Target, stem: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
    topic = fresh(stem)
    admin = _admin(target)
    admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config or {})])

    def is_listed() -> bool:
        (described,) = admin.describe_topics([topic])
        return len(described["partitions"]) == partitions

    eventually(is_listed, 15, "the new topic is not listed")
    admin.close()
    return topic


def _producer(target: Target, **settings: Any) -> Any:
    return KafkaProducer(bootstrap_servers=target.bootstrap, **PINNED | settings)


def _consumer(target: Target, *topics: str, group: str | None = None, **settings: Any) -> Any:
    return KafkaConsumer(
        *topics,
        bootstrap_servers=target.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=int(SESSION_TIMEOUT * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_INTERVAL * 1000),
        **PINNED | settings,
    )


@contextmanager
def _member(target: Target, topic: str, group: str, **settings: Any) -> Iterator[Callable[[], set[Any]]]:
    """Lend a group member that polls in a thread of its own (where its whole client lives); calling it tells what it owns."""
    owned: set[Any] = set()
    failed: list[BaseException] = []
    end = threading.Event()

    def live() -> None:
        nonlocal owned
        try:
            consumer = _consumer(target, topic, group=group, **settings)
            while not end.is_set():
                consumer.poll(timeout_ms=POLL_MS)
                owned = set(consumer.assignment())
            consumer.close(autocommit=False)
        except BaseException as error:
            failed.append(error)
            raise

    def owns() -> set[Any]:
        assert not failed, failed
        return owned

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield owns
    finally:
        end.set()
        thread.join(20)


@contextmanager
def _trickle(target: Target, topic: str, partitions: int) -> Iterator[None]:
    """Keep sending a record to each partition ten times a second, so that no poll takes long."""
    end = threading.Event()

    def send() -> None:
        producer = _producer(target)
        while not end.wait(0.1):
            for partition in range(partitions):
                producer.send(topic, b"x", partition=partition)
        producer.close()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(20)


def _send(target: Target, topic: str, values: Iterable[bytes], **settings: Any) -> None:
    producer = _producer(target, **settings)
    futures = [producer.send(topic, value, partition=0) for value in values]
    for future in futures:
        future.get(20)
    producer.close()


def _read(consumer: Any, count: int, timeout: float = 20.0) -> list[Any]:
    deadline = time.monotonic() + timeout
    records: list[Any] = []
    while len(records) < count and time.monotonic() < deadline:
        for more in consumer.poll(timeout_ms=POLL_MS).values():
            records.extend(more)
    assert len(records) == count, f"{len(records)} instead of {count} records"
    return records


def _read_topic(target: Target, topic: str, count: int, **settings: Any) -> list[Any]:
    consumer = _consumer(target, **settings)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    records = _read(consumer, count)
    assert not consumer.poll(timeout_ms=300), "more records than were sent"
    consumer.close()
    return records
