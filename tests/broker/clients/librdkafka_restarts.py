"""librdkafka: what was acknowledged before the broker went down, and is there when it is back."""

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from tests.broker.clients.checking import Target
from tests.broker.clients.librdkafka import Delivered, admin, consumer, drain, producer, read, send

COUNT = 5000


def leave(target: Target, name: str) -> None:
    """Produce and commit; then open a transaction and leave it open, for the broker to be killed under."""
    for topic in (name, f"{name}-transactions"):
        admin(target).create_topics([NewTopic(topic, 1)])[topic].result(15)
    reader = consumer(target, name)
    reader.subscribe([name])
    send(target, name, [b"%d" % n for n in range(COUNT)], enable_idempotence=True)
    read(reader, COUNT)
    reader.commit(offsets=[TopicPartition(name, 0, COUNT - 7, metadata="seven left")], asynchronous=False)
    transactional = producer(target, transactional_id=name)
    transactional.init_transactions(20)
    for value in (b"committed", b"open"):
        transactional.begin_transaction()
        delivered = Delivered(transactional)
        delivered.produce(f"{name}-transactions", value=value)
        delivered.wait()
        if value == b"committed":
            transactional.commit_transaction(15)


def find(target: Target, name: str) -> None:
    """Find every record and the commit again, and of the transactions only what was committed."""
    reader = consumer(target, name)
    (committed,) = reader.committed([TopicPartition(name, 0)], timeout=15)
    assert (committed.offset, committed.metadata) == (COUNT - 7, "seven left")
    reader.assign([TopicPartition(name, 0, 0)])
    records = read(reader, COUNT)
    assert [(record.offset(), int(record.value())) for record in records] == [(n, n) for n in range(COUNT)]
    reader.close()
    transactional = producer(target, transactional_id=name)
    transactional.init_transactions(20)
    transactional.begin_transaction()
    transactional.produce(f"{name}-transactions", value=b"after")
    transactional.commit_transaction(15)
    reader = consumer(target, isolation_level="read_committed")
    reader.assign([TopicPartition(f"{name}-transactions", 0, 0)])
    values = [record.value() for record in read(reader, 2) + drain(reader, quiet=0.5)]
    reader.close()
    assert values == [b"committed", b"after"]
