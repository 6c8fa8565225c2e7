"""librdkafka: topics, settings, and what a topic's settings do to its records."""

import contextlib
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.broker.clients.checking import Target, check, eventually, fresh
from tests.broker.clients.librdkafka import Delivered, admin, consumer, create, drain, producer, read_topic, send

_ANY_GRANT = AclBindingFilter(
    *(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)
)


@check(quick_on_kafka=True)
def admin_create_list_describe_delete(target: Target) -> None:
    client = admin(target)
    topic = create(target, "admin", partitions=3)
    assert topic in client.list_topics(timeout=10).topics
    (brokers,) = [client.describe_cluster().result(10).nodes]
    assert len(brokers) >= 1
    client.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in client.list_topics(timeout=10).topics, 15, "the deleted topic is still listed")


@check(limit=60)
def a_producer_follows_a_topic_made_again_with_fewer_partitions(target: Target) -> None:
    """It knows another topic by its id. By the name alone it would go on writing to partitions that are gone, for ever."""
    _follow(target, producer(target, message_timeout_ms=20_000))


@check(limit=60)
def an_idempotent_producer_follows_a_topic_made_again_with_fewer_partitions(target: Target) -> None:
    _follow(target, producer(target, message_timeout_ms=20_000, enable_idempotence=True))


def _follow(target: Target, sender: Producer) -> None:
    client = admin(target)
    topic = create(target, "again", partitions=4)
    assert _round(sender, topic) == {0, 1, 2, 3}
    client.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in client.list_topics(timeout=10).topics, 15, "the deleted topic is still listed")
    client.create_topics([NewTopic(topic, 1)])[topic].result(15)
    eventually(lambda: _round(sender, topic) == {0}, 45, "the producer does not reach the new topic")


def _round(sender: Producer, topic: str) -> set[int | str]:
    """Send a few records with different keys; return the partitions they came to, and the names of errors."""
    found: set[int | str] = set()
    for number in range(40):
        sender.produce(
            topic,
            b"x",
            key=str(number),
            on_delivery=lambda error, message: found.add(error.name() if error else message.partition()),
        )
    assert sender.flush(30) == 0
    return found


@check()
def create_duplicate(target: Target) -> None:
    topic = create(target, "twice")
    assert _refusal(admin(target).create_topics([NewTopic(topic, 1)])[topic]) == KafkaError.TOPIC_ALREADY_EXISTS


@check(quick_on_kafka=True)
def create_partitions(target: Target) -> None:
    client = admin(target)
    topic = create(target, "grow")
    client.create_partitions([NewPartitions(topic, 4)])[topic].result(10)
    eventually(lambda: len(client.list_topics(topic, timeout=10).topics[topic].partitions) == 4, 10, "not 4 partitions")
    assert _refusal(client.create_partitions([NewPartitions(topic, 2)])[topic]) == KafkaError.INVALID_PARTITIONS


@check(quick_on_kafka=True)
def configs_describe_alter(target: Target) -> None:
    client = admin(target)
    topic = create(target, "configured", config={"retention.ms": "12345"})

    def retention() -> str:
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        return client.describe_configs([resource])[resource].result(10)["retention.ms"].value

    assert retention() == "12345"
    entry = ConfigEntry("retention.ms", "777", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(10)
    eventually(lambda: retention() == "777", 10, "the altered setting does not read back")


@check(auto_create=True)
def auto_create(target: Target) -> None:
    topic = fresh("unknown")
    send(target, topic, [b"%d" % n for n in range(5)])
    assert [record.value() for record in read_topic(target, topic, 5)] == [b"%d" % n for n in range(5)]


@check()
def acls(target: Target) -> None:
    """The embedded broker has no ACLs and does not advertise them; Apache Kafka has none without an authorizer."""
    grant = AclBinding(
        *(ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, "User:somebody", "*"),
        *(AclOperation.READ, AclPermissionType.ALLOW),
    )
    refusal = _refusal(admin(target).create_acls([grant])[grant])
    expected = {"embedded": KafkaError._UNSUPPORTED_FEATURE, "kafka": KafkaError.SECURITY_DISABLED}
    assert refusal == expected[target.kind], refusal
    with contextlib.suppress(KafkaException):
        admin(target).describe_acls(_ANY_GRANT).result(10)
    assert admin(target).list_topics(timeout=10).brokers, "the process did not survive the refusal"


@check(quick_on_kafka=True)
def delete_records(target: Target) -> None:
    topic = create(target, "shortened")
    send(target, topic, [b"%d" % n for n in range(100)])
    admin(target).delete_records([TopicPartition(topic, 0, 50)])[TopicPartition(topic, 0)].result(10)
    client = consumer(target)
    assert client.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (50, 100)
    client.close()
    assert [record.offset() for record in read_topic(target, topic, 50, offset=50)] == list(range(50, 100))


@check(limit=60)
def compaction(target: Target) -> None:
    config = {"cleanup.policy": "compact", "segment.ms": "200"}
    topic = create(target, "compacted", config=config)
    delivered = Delivered(producer(target))

    def produce(numbers: range) -> None:
        for n in numbers:
            delivered.produce(topic, key=b"key-%d" % (n % 10), value=b"%d" % n)
        delivered.wait()

    produce(range(1000))

    def left() -> int:
        # A new record makes the broker close the old segment: the open one is never compacted.
        produce(range(1000, 1001))
        client = consumer(target)
        client.assign([TopicPartition(topic, 0, 0)])
        records = drain(client, quiet=0.7)
        client.close()
        latest = {record.key(): record.value() for record in records}
        assert latest == {b"key-0": b"1000"} | {b"key-%d" % n: b"%d" % (990 + n) for n in range(1, 10)}
        return len(records)

    eventually(lambda: left() < 1000, 40, "nothing was compacted", pause=0.5)


@check(limit=60)
def retention(target: Target) -> None:
    topic = create(target, "short-lived", config={"retention.ms": "1000", "segment.ms": "500"})
    send(target, topic, [b"%d" % n for n in range(100)])
    client = consumer(target)

    def low() -> int:
        return client.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)[0]

    eventually(lambda: low() == 100, 8 if target.kind == "embedded" else 40, "old records are still there")
    client.close()


@check()
def log_append_time(target: Target) -> None:
    topic = create(target, "broker-time", config={"message.timestamp.type": "LogAppendTime"})
    delivered = Delivered(producer(target))
    delivered.produce(topic, value=b"x", timestamp=1_600_000_000_123)
    delivered.wait()
    (record,) = read_topic(target, topic, 1)
    kind, timestamp = record.timestamp()
    assert kind == 2, "not stamped by the broker"
    assert timestamp > 1_700_000_000_000


def _refusal(future: Any) -> int:
    """Return the code of the error that a request ends with."""
    try:
        future.result(15)
    except KafkaException as error:
        return error.args[0].code()
    raise AssertionError("the request was granted")
