"""What only the in-memory broker offers: faults, a clock, a name, many loops."""

import asyncio
import threading

import pytest

from octopus.errors import ConnectionFailed, CorruptBatch, PartitionLost
from octopus.events import TopicPartition
from octopus.transports.base import Commit, Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.opening import open_transport
from octopus.transports.partitioner import murmur2

from .members import Member, together

ZERO = TopicPartition("numbers", 0)


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker(clock=lambda: 1234.5)
    broker.append([Outgoing("numbers", b"%d" % number) for number in range(10)])
    return broker


async def member_of(broker: MemoryBroker, group: str = "group") -> Member:
    member = Member(MemoryTransport(broker), group, {"numbers"})
    await member.consumer.start(member)
    await member.until(lambda: member.mine)
    return member


async def test_faults_fail_the_next_call_and_no_more(broker: MemoryBroker) -> None:
    member = await member_of(broker)
    for what, call in (
        ("commit", lambda: member.consumer.commit({ZERO: Commit(1)})),
        ("committed", lambda: member.consumer.committed({ZERO})),
        ("fetch", lambda: member.consumer.fetch({ZERO}, max_records=1, timeout=0)),
        ("send", lambda: MemoryTransport(broker).producer().send(Outgoing("numbers", b"x"))),
    ):
        broker.faults.fail_next(what, ConnectionFailed("cut"))
        with pytest.raises(ConnectionFailed):
            await call()
        await call()
    await member.consumer.stop()


async def test_an_unreadable_place_ends_a_partition_after_what_is_before_it(broker: MemoryBroker) -> None:
    broker.faults.unreadable[ZERO] = (4, CorruptBatch("bad"))
    member = await member_of(broker)
    await member.until(lambda: member.unreadable)
    assert member.values() == [b"0", b"1", b"2", b"3"]
    broker.faults.unreadable.clear()
    await member.until(lambda: member.count == 10)
    await member.consumer.stop()


async def test_an_expelled_member_loses_its_partitions_may_not_commit_and_joins_again(broker: MemoryBroker) -> None:
    member = await member_of(broker)
    broker.expel("group")
    with pytest.raises(PartitionLost):
        await member.consumer.commit({ZERO: Commit(3)})
    await member.until(lambda: len(member.changes) == 3)
    assert [what for what, _ in member.changes] == ["assigned", "lost", "assigned"]
    await member.consumer.stop()


async def test_holes_and_deleted_records_are_passed_over_or_reported(broker: MemoryBroker) -> None:
    broker.remove(ZERO, 1)
    broker.remove(ZERO, 9)
    member = await member_of(broker)
    await member.until(lambda: member.next_offsets.get(ZERO) == 10)
    assert member.count == 8
    broker.delete_records(ZERO, 5)
    await member.consumer.seek({ZERO: 2})
    await member.until(lambda: member.unreadable)
    assert await member.consumer.offsets({ZERO}, "earliest") == {ZERO: 5}
    await member.consumer.stop()


async def test_time_comes_from_the_clock(broker: MemoryBroker) -> None:
    member = await member_of(broker)
    await member.until(lambda: member.count == 10)
    assert {record.timestamp for record in member.records[ZERO]} == {1_234_500}
    await member.consumer.stop()


async def test_a_name_is_one_broker_and_no_name_a_new_one() -> None:
    first, same, other = open_transport("memory://lab"), open_transport("memory://lab"), open_transport("memory://")
    await first.producer().send(Outgoing("topic", b"x"))
    assert [topic.name for topic in await same.admin().topics()] == ["topic"]
    assert await other.admin().topics() == []


async def test_members_may_live_in_other_threads(broker: MemoryBroker) -> None:
    found: list[int] = []

    async def consume() -> None:
        member = await member_of(broker, "elsewhere")
        await member.until(lambda: member.count == 11)
        found.append(member.count)
        await member.consumer.stop()

    thread = threading.Thread(target=lambda: asyncio.run(consume()))
    thread.start()
    here = await member_of(broker, "here")
    await MemoryTransport(broker).producer().send(Outgoing("numbers", b"more"))
    await together(lambda: here.count == 11, here)
    await asyncio.to_thread(thread.join, 10)
    assert found == [11]
    await here.consumer.stop()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
    ids=["two", "six", "long", "longer", "longest", "three"],
)
def test_murmur2_is_the_one_of_the_java_client(key: bytes, expected: int) -> None:
    # the vectors of org.apache.kafka.common.utils.UtilsTest
    assert murmur2(key) == expected & 0xFFFFFFFF
