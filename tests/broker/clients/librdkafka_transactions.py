"""librdkafka: transactions."""

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from tests.broker.clients.checking import Target, check, fresh
from tests.broker.clients.librdkafka import consumer, create, drain, producer, read, send


@check(races=True, quick_on_kafka=True)
def txn_commit_abort_read_committed(target: Target) -> None:
    topic = create(target, "transactional")
    client = _transactional(target)
    for values, commit in (([b"a", b"b", b"c"], True), ([b"x", b"y", b"z"], False), ([b"d", b"e"], True)):
        client.begin_transaction()
        for value in values:
            client.produce(topic, value=value)
        assert client.flush(15) == 0
        if commit:
            client.commit_transaction(15)
        else:
            client.abort_transaction(15)
    assert _values(target, topic, "read_committed", 5) == [b"a", b"b", b"c", b"d", b"e"]
    assert _values(target, topic, "read_uncommitted", 8) == [b"a", b"b", b"c", b"x", b"y", b"z", b"d", b"e"]


@check(races=True, quick_on_kafka=True)
def txn_open_blocks_LSO(target: Target) -> None:
    topic = create(target, "open")
    client = _transactional(target)
    client.begin_transaction()
    client.produce(topic, value=b"pending")
    assert client.flush(15) == 0
    send(target, topic, [b"after"])
    reader = consumer(target, isolation_level="read_committed")
    reader.assign([TopicPartition(topic, 0, 0)])
    assert drain(reader, quiet=1.5) == [], "records leaked past an open transaction"
    client.commit_transaction(15)
    assert [record.value() for record in read(reader, 2)] == [b"pending", b"after"]
    reader.close()


@check(races=True, quick_on_kafka=True)
def txn_send_offsets(target: Target) -> None:
    topic, group = create(target, "source"), fresh("group")
    send(target, topic, [b"%d" % n for n in range(10)])
    reader = consumer(target, group, isolation_level="read_committed")
    reader.subscribe([topic])
    read(reader, 10)
    client = _transactional(target)
    reached = [TopicPartition(topic, 0, 10)]

    def committed() -> int:
        (partition,) = reader.committed([TopicPartition(topic, 0)], timeout=15)
        return partition.offset

    client.begin_transaction()
    client.send_offsets_to_transaction(reached, reader.consumer_group_metadata(), 15)
    client.abort_transaction(15)
    assert committed() < 0, "offsets of an aborted transaction show"
    client.begin_transaction()
    client.send_offsets_to_transaction(reached, reader.consumer_group_metadata(), 15)
    client.commit_transaction(15)
    assert committed() == 10
    reader.close()


@check(races=True)
def txn_fencing(target: Target) -> None:
    topic, name = create(target, "fenced"), fresh("transactional")
    old = _transactional(target, name)
    old.begin_transaction()
    old.produce(topic, value=b"old")
    assert old.flush(15) == 0
    new = _transactional(target, name)
    new.begin_transaction()
    new.produce(topic, value=b"new")
    new.commit_transaction(15)
    code = None
    try:
        old.produce(topic, value=b"late")
        old.commit_transaction(15)
    except KafkaException as error:
        code = error.args[0].code()
    assert code in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH), code
    assert _values(target, topic, "read_committed", 1) == [b"new"]


def _transactional(target: Target, name: str | None = None) -> Producer:
    client = producer(target, transactional_id=name or fresh("transactional"))
    client.init_transactions(20)
    return client


def _values(target: Target, topic: str, isolation: str, count: int) -> list[bytes | None]:
    client = consumer(target, isolation_level=isolation)
    client.assign([TopicPartition(topic, 0, 0)])
    records = read(client, count) + drain(client, quiet=0.5)
    client.close()
    return [record.value() for record in records]
