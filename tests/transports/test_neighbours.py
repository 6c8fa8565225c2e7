"""Other people's clients of aiokafka in the same process work as they do without Octopus."""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from octopus.events import TopicPartition
from octopus.logs import ENGINE
from octopus.transports.base import Admin, Outgoing, Producer, Transport
from octopus.transports.kafka.connection import Connection
from octopus.transports.kafka.fetched import FetchedBatches
from octopus.transports.opening import open_transport

from .members import Member


@pytest.fixture
def transport(wire_transport: Transport) -> Transport:
    return wire_transport


@pytest.fixture
async def member(transport: Transport, admin: Admin, topic: str) -> AsyncIterator[Member]:
    """One of ours, at work, which unpacks no more than a kilobyte."""
    strict = open_transport(transport.address, decompression_limit_bytes=1000)  # type: ignore[attr-defined]
    made = Member(strict, topic, {topic})
    await made.consumer.start(made)
    await made.until(lambda: bool(made.mine))
    yield made
    await made.consumer.stop()


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_their_connections_and_records_are_aiokafkas_and_know_none_of_our_limits(
    transport: Transport, producer: Producer, member: Member, topic: str, compression: str | None
) -> None:
    address: str = transport.address  # type: ignore[attr-defined]
    await producer.send(Outgoing(topic, b"ours", partition=1))
    values = [b"%d" % number * (number * 300) for number in range(100)]
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=address, compression_type=compression) as theirs:
        for value in values:
            await theirs.send(topic, value, key=b"key", partition=0, headers=[("header", value[:3])])
        await theirs.flush()
        assert {type(each) for each in theirs.client._conns.values()} == {AIOKafkaConnection}
    place = KafkaTopicPartition(topic, 0)
    options: dict[str, Any] = {"bootstrap_servers": address, "auto_offset_reset": "earliest", "group_id": f"{topic}-2"}
    async with aiokafka.AIOKafkaConsumer(topic, **options) as consumer:
        assert type(consumer._fetcher) is Fetcher
        assert type(consumer._coordinator) is GroupCoordinator
        records: list[Any] = [await consumer.getone()]
        while len(records) <= len(values):
            fetched = consumer._fetcher._records.get(place)
            if isinstance(fetched, FetchResult) and fetched._partition_records is not None:
                assert type(fetched._partition_records) is PartitionRecords
                assert type(fetched._partition_records._records) is MemoryRecords
            records += [
                each for some in (await consumer.getmany(timeout_ms=1000, max_records=7)).values() for each in some
            ]
        assert {type(each) for each in consumer._client._conns.values()} == {AIOKafkaConnection}
    read = [record for record in records if record.partition == 0]
    assert [record.value for record in read] == values
    assert {record.key for record in read} == {b"key"}
    assert read[-1].headers == (("header", b"999"[:3]),)
    await member.until(lambda: member.values(TopicPartition(topic, 1)) == [b"ours"])
    ours: Any = member.consumer._engine  # type: ignore[attr-defined]
    assert {type(each) for each in ours.client._conns.values()} == {Connection}
    if compression is not None:
        await member.until(lambda: TopicPartition(topic, 0) in member.unreadable)


async def test_their_requests_are_logged_as_ever_and_ours_never(
    transport: Transport, admin: Admin, member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiokafka")
    caplog.set_level(logging.DEBUG, ENGINE)
    address: str = transport.address  # type: ignore[attr-defined]
    await admin.topics()
    assert {each.name for each in caplog.records if "kafka" in each.name} <= {ENGINE}
    assert [each.getMessage() for each in caplog.records if each.getMessage().startswith(("Request", "Response"))] == []
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=address, client_id="theirs"):
        pass
    asked = [each for each in caplog.records if each.getMessage().startswith("Request to")]
    assert asked
    assert {each.name for each in asked} == {"aiokafka.conn"}


BEFORE_AND_AFTER = """
import asyncio, logging, pkgutil, sys, types
import aiokafka

for each in pkgutil.walk_packages(aiokafka.__path__, "aiokafka."):
    __import__(each.name)

def seen():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "aiokafka":
            for key, value in vars(module).items():
                found[name, key] = value
                if isinstance(value, type) and value.__module__.startswith("aiokafka"):
                    found |= {(value.__qualname__, inside): each for inside, each in vars(value).items()}
    for name in ("aiokafka", "aiokafka.conn"):
        logger = logging.getLogger(name)
        found[name, "logger"] = (*logger.filters, *logger.handlers, logger.propagate, logger.disabled)
    return found

before = seen()

from octopus.transports.base import Outgoing
from octopus.transports.opening import open_transport
from tests.transports.members import Member

async def main():
    transport = open_transport("embedded://", mode="thread")
    await transport.open()
    admin, producer = transport.admin(), transport.transactional_producer("me")
    await admin.start()
    await admin.create_topic("topic")
    await producer.start()
    await producer.begin()
    await producer.send_many([Outgoing("topic", b"1")])
    await producer.commit()
    member = Member(transport, "group", {"topic"})
    await member.consumer.start(member)
    await member.until(lambda: member.count == 1)
    await member.consumer.stop()
    await producer.stop()
    await admin.stop()
    await transport.close()

asyncio.run(main())
after = seen()
counter = ("AIOKafkaProducer", "_PRODUCER_CLIENT_ID_SEQUENCE")  # counts producers
changed = [key for key in before.keys() | after.keys()
           if before.get(key) is not after.get(key) and before.get(key) != after.get(key) and key != counter]
print(len(before), sorted(map(str, changed)))
"""


@pytest.mark.process
def test_nothing_in_aiokafka_is_another_thing_after_octopus_was_used() -> None:
    root = Path(__file__).parent.parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", BEFORE_AND_AFTER], cwd=root, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    count, _, changed = ended.stdout.partition(" ")
    assert int(count) > 2000
    assert changed.strip() == "[]"


def test_the_batches_of_ours_are_read_where_they_lie() -> None:
    from octopus.transports.kafka import clients

    fetcher = clients.Consumer.start.__globals__["Fetcher"]
    assert fetcher._proc_fetch_request.__globals__["MemoryRecords"] is FetchedBatches
    assert Fetcher._proc_fetch_request.__globals__["MemoryRecords"] is MemoryRecords
