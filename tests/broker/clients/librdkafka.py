"""librdkafka (confluent-kafka): what its checks share."""

import functools
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker.clients.checking import HEARTBEAT_INTERVAL, SESSION_TIMEOUT, Target, eventually, fresh

MESSAGE_MAX_BYTES = 1_048_588


@functools.cache  # a client that is collected takes its unanswered requests with it
def admin(target: Target) -> AdminClient:
    """Return the administration client of this process."""
    return AdminClient({"bootstrap.servers": target.bootstrap, "log_level": 3})


def create(target: Target, stem: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
    """Create a topic with a fresh name, wait until it is listed, and return the name."""
    topic = fresh(stem)
    client = admin(target)
    client.create_topics([NewTopic(topic, partitions, config=config or {})])[topic].result(15)

    def is_listed() -> bool:
        return len(client.list_topics(topic, timeout=10).topics[topic].partitions) == partitions

    eventually(is_listed, 15, f"the new topic is not listed with {partitions} partitions")
    return topic


def producer(target: Target, **settings: Any) -> Producer:
    """Return a producer; settings by librdkafka's names with `_` for `.`."""
    base = {"bootstrap.servers": target.bootstrap, "log_level": 3, "linger.ms": 2}
    return Producer(base | _dotted(settings))


def consumer(target: Target, group: str | None = None, **settings: Any) -> Consumer:
    """Return a consumer that starts at the earliest record and commits only when told to."""
    base = {
        "bootstrap.servers": target.bootstrap,
        "log_level": 3,
        "group.id": group or fresh("group"),
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": int(SESSION_TIMEOUT * 1000),
        "heartbeat.interval.ms": int(HEARTBEAT_INTERVAL * 1000),
        "fetch.wait.max.ms": 100,
        "check.crcs": True,
    }
    return Consumer(base | _dotted(settings))


def send(target: Target, topic: str, values: Iterable[bytes | None], **settings: Any) -> None:
    """Produce `values` to a topic and see that each was acknowledged: `flush()` alone does not tell."""
    with_reports = Delivered(producer(target, **settings))
    for value in values:
        with_reports.produce(topic, value=value)
    with_reports.wait()


class Delivered:
    """A producer that remembers what became of each record."""

    def __init__(self, client: Producer) -> None:
        self.client = client
        self.errors: list[Any] = []
        self.count = 0

    def produce(self, topic: str, **record: Any) -> None:
        """Produce one record, waiting while the local queue is full."""
        while True:
            try:
                return self.client.produce(topic, on_delivery=self._report, **record)
            except BufferError:
                self.client.poll(0.1)

    def wait(self, timeout: float = 25.0) -> None:
        """Wait until all are acknowledged."""
        assert self.client.flush(timeout) == 0, f"records are still unacknowledged after {timeout} s"
        assert not self.errors, self.errors[:3]

    def _report(self, error: object, _: Message) -> None:
        self.count += 1
        if error is not None:
            self.errors.append(error)


def read(client: Consumer, count: int, timeout: float = 20.0) -> list[Message]:
    """Return the next `count` records."""
    deadline = time.monotonic() + timeout
    records: list[Message] = []
    while len(records) < count and time.monotonic() < deadline:
        record = client.poll(0.2)
        if record is None:
            continue
        assert record.error() is None, record.error()
        records.append(record)
    assert len(records) == count, f"{len(records)} of {count} records within {timeout} s"
    return records


def read_topic(target: Target, topic: str, count: int, offset: int = 0, **settings: Any) -> list[Message]:
    """Return `count` records of partition 0 from `offset` on, read without a group."""
    client = consumer(target, **settings)
    client.assign([TopicPartition(topic, 0, offset)])
    try:
        return read(client, count)
    finally:
        client.close()


def drain(client: Consumer, quiet: float = 1.5) -> list[Message]:
    """Return what comes until nothing has come for `quiet` seconds."""
    records: list[Message] = []
    while (record := client.poll(quiet)) is not None:
        assert record.error() is None, record.error()
        records.append(record)
    return records


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in settings.items()}
