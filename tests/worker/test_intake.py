"""Back-pressure, fairness, and partitions that cannot be read."""

import asyncio
from typing import Any

import pytest

from octopus import Event, Octopus
from octopus.errors import CorruptBatch
from octopus.events import TopicPartition
from octopus.runner.lanes import LANES
from octopus.testing import VirtualTime
from octopus.transports.base import Chunk, Commit, Outgoing
from octopus.transports.memory import MemoryBroker
from octopus.transports.memory.transport import MemoryConsumer
from tests.staged import P0, P1, committed, publish, unread, until, working


@pytest.mark.parametrize(
    ("settings", "value", "most"),
    [
        ({"in_flight_records": 2_000}, b"0", 2_000 + 500),
        ({"in_flight_bytes": 2_000_000}, b"0" * 2_000, 1_000 + 500),
    ],
    ids=["count", "bytes"],
)
@pytest.mark.parametrize("ordering", ["partition", "key"])
async def test_what_is_in_flight_is_bounded_while_a_handler_hangs(
    settings: dict[str, int], value: bytes, most: int, ordering: Any, virtual_time: VirtualTime
) -> None:
    app, broker, release, count = Octopus("app"), MemoryBroker(), asyncio.Event(), [0]

    @app.on("t", ordering=ordering)
    async def handle(_value: bytes) -> None:
        await release.wait()
        count[0] += 1

    broker.append([Outgoing("t", value, b"key") for _ in range(6_000)])
    async with working(app, broker, worker=settings) as worker:
        for _ in range(20):
            await asyncio.sleep(1)
            assert worker.status().groups[0].in_flight <= most
        assert worker.status().groups[0].in_flight > 100
        assert worker.status().groups[0].since_fetch < 1, "the group machinery has its turn"
        release.set()
        await worker.caught_up()
    assert count == [6_000]
    assert committed(broker, "app.handle") == 6_000


async def test_a_partition_that_hangs_is_held_back_while_the_others_go_on(virtual_time: VirtualTime) -> None:
    app, broker, release, done = Octopus("app"), MemoryBroker(), asyncio.Event(), []
    broker.create_topic("t", 3)

    @app.on("t", ordering="key", concurrency=10)
    async def handle(event: Event[int]) -> None:
        if event.partition == 0:
            await release.wait()
        done.append(event.partition)

    for partition in range(3):
        broker.append([Outgoing("t", b"0", b"hot", partition=partition) for _ in range(5_000)])
    async with working(app, broker, worker={"in_flight_records": 1_000}) as worker:
        await until(lambda: len(done) == 10_000, 60)
        assert 0 not in done
        assert worker.status().groups[0].in_flight <= 1_500
        release.set()
        await worker.caught_up()
    assert len(done) == 15_000


async def test_partitions_that_hang_never_starve_the_others_however_many_there_are(virtual_time: VirtualTime) -> None:
    app, broker, release, done = Octopus("app"), MemoryBroker(), asyncio.Event(), []
    broker.create_topic("t", 6)

    @app.on("t", ordering="key", concurrency=10)
    async def handle(event: Event[int]) -> None:
        if event.partition < 5:
            await release.wait()
        done.append(event.partition)

    for partition in range(6):
        broker.append([Outgoing("t", b"0", b"hot", partition=partition) for _ in range(1_000)])
    async with working(app, broker, worker={"in_flight_records": 100}) as worker:
        await until(lambda: len(done) == 1_000, 60)
        assert {*done} == {5}
        assert worker.status().groups[0].in_flight <= 200
        release.set()
        await worker.caught_up()
    assert len(done) == 6_000


async def test_a_few_large_records_that_hang_do_not_vanish_among_many_small_ones(virtual_time: VirtualTime) -> None:
    app, broker, release = Octopus("app"), MemoryBroker(), asyncio.Event()
    large = 0

    @app.on("t", ordering="key", concurrency=10)
    async def handle(event: Event[bytes]) -> None:
        if event.key == b"hot":
            await release.wait()

    for number in range(30_000):
        hot = number % 200 == 0
        broker.append([Outgoing("t", bytes(100_000) if hot else b"", b"hot" if hot else b"%d" % number)])
    async with working(app, broker, worker={"in_flight_bytes": 2_000_000}) as worker:
        for _ in range(20):
            await asyncio.sleep(1)
            large = worker.status().groups[0].in_flight  # small ones are done soon
        assert 5 < large < 35
        release.set()
        await worker.caught_up()


async def test_large_records_of_partitions_that_hang_come_to_no_more_than_a_little_over_all_that_may(
    virtual_time: VirtualTime,
) -> None:
    app, broker, release, done = Octopus("app"), MemoryBroker(), asyncio.Event(), [0]
    broker.create_topic("t", 50)

    @app.on("t")
    async def handle(_event: Event[bytes]) -> None:
        await release.wait()
        done[0] += 1

    for partition in range(50):
        broker.append([Outgoing("t", bytes(1_000_000), partition=partition) for _ in range(3)])
    async with working(app, broker, worker={"in_flight_bytes": 8_000_000}) as worker:
        for _ in range(20):
            await asyncio.sleep(1)
            assert worker.status().groups[0].in_flight <= 12
        release.set()
        await worker.caught_up()
    assert done == [150]


async def test_batches_of_many_partitions_do_not_wait_for_company_that_has_no_room(virtual_time: VirtualTime) -> None:
    app, broker, done = Octopus("app"), MemoryBroker(), []
    broker.create_topic("t", 20)

    @app.on("t", batch=100, within=10)
    async def handle(events: list[int]) -> None:
        done.extend(events)

    for partition in range(20):
        broker.append([Outgoing("t", b"0", partition=partition) for _ in range(1_000)])
    started = asyncio.get_running_loop().time()
    async with working(app, broker, worker={"in_flight_records": 500}) as worker:
        await worker.caught_up()
    assert asyncio.get_running_loop().time() - started < 25, "two windows, at the end"
    assert len(done) == 20_000


async def test_a_slow_key_among_many_does_not_hold_the_others(virtual_time: VirtualTime) -> None:
    app, broker, release, done = Octopus("app"), MemoryBroker(), asyncio.Event(), []

    @app.on("t", ordering="key")
    async def handle(event: Event[int]) -> None:
        if event.key == b"7":
            await release.wait()
        done.append(event.key)

    broker.append([Outgoing("t", b"0", b"%d" % (number % 1000)) for number in range(20_000)])
    async with working(app, broker) as worker:
        await until(lambda: len(done) == 20_000 - 20, 60)
        await asyncio.sleep(2)
        assert committed(broker, "app.handle") == 7
        release.set()
        await worker.caught_up()


async def test_partitions_share_the_handlers_fairly(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []
    broker.create_topic("t", 4)

    @app.on("t", ordering="none", concurrency=4)
    async def handle(event: Event[int]) -> None:
        await asyncio.sleep(0.001)
        seen.append(event.partition)

    for partition in range(4):
        broker.append([Outgoing("t", b"0", partition=partition) for _ in range(3_000)])
    async with working(app, broker) as worker:
        await until(lambda: len(seen) > 6_000, 60)
        assert min(seen.count(partition) for partition in range(4)) > 500
        await worker.caught_up()


async def test_an_unreadable_partition_stops_alone_and_loudly(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []
    broker.create_topic("t", 2)
    broker.faults.unreadable[P0] = (3, CorruptBatch("the checksum is wrong"))

    @app.on("t")
    async def handle(event: Event[int]) -> None:
        seen.append((event.partition, event.value))

    for partition in (0, 1):
        publish(broker, *range(6), partition=partition)
    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle", P1) == 6)
        publish(broker, 6, partition=1)
        await until(lambda: committed(broker, "app.handle", P1) == 7)
        assert worker.status().groups[0].unreadable == {"t[0]": "the checksum is wrong"}
        await until(lambda: committed(broker, "app.handle", P0) == 3)
    assert [value for partition, value in seen if partition == 0] == [0, 1, 2]


async def test_an_offset_outside_the_log_stops_its_partition_and_never_jumps(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    publish(broker, *range(4))
    async with working(app, broker) as worker:
        await worker.caught_up()
    publish(broker, *range(4, 9))
    broker.delete_records(TopicPartition("t", 0), 6)
    async with working(app, broker) as worker:
        await until(lambda: worker.status().groups and worker.status().groups[0].unreadable)
        await until(lambda: "octopus groups reset" in worker.status().groups[0].unreadable["t[0]"])
        said = worker.status().groups[0].unreadable["t[0]"]
        assert "octopus groups reset app.handle --topic t --partition 0 --to earliest" in said
        assert "t[0]@4 is outside the log (6 to 9)" in said
    assert seen == [0, 1, 2, 3]
    assert committed(broker, "app.handle") == 4


async def test_partitions_of_a_topic_whose_offsets_are_outside_the_log_are_said_in_one_sentence(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    broker.create_topic("t", 3)

    @app.on("t")
    async def handle(value: int) -> None: ...

    for number in range(3):
        publish(broker, *range(9), partition=number)
        broker.group("app.handle").offsets[TopicPartition("t", number)] = Commit(4)
        broker.delete_records(TopicPartition("t", number), 0 if number == 1 else 6)
    async with working(app, broker) as worker:
        await until(lambda: worker.status().groups and len(worker.status().groups[0].unreadable) == 2)
        await asyncio.sleep(10)
    (line,) = [each.message for each in caplog.records if "is not in the log" in each.message]
    assert line.startswith("app.handle stops reading t[0], t[2]: ")
    assert "--topic t --partition 0 --partition 2 --to earliest" in line
    assert "t[0]@4 is outside" in line
    assert "t[2]@4 is outside" in line


class Unreading(MemoryConsumer):
    """Reads what it hands over as late as consumers of a real broker do; one record is none."""

    broken: tuple[TopicPartition, int]

    def _read(self, partitions, max_records, max_bytes):  # type: ignore[no-untyped-def]
        found = super()._read(partitions, max_records, max_bytes)
        return [self._late(each) if isinstance(each, Chunk) and each.records else each for each in found]

    def _late(self, chunk: Chunk) -> Chunk:
        given_records = [*chunk.records]
        partition, offset = self.broken
        at = offset - given_records[0].offset if chunk.partition == partition else None
        return chunk._replace(records=unread(given_records, 4, at))


@pytest.mark.parametrize("ordering", [*LANES, "batch"])
async def test_a_worker_stops_a_partition_at_a_batch_that_is_none_and_the_others_go_on(
    ordering: str, virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    async def handle(value: int) -> None:
        seen.append(value)

    async def handle_batch(values: list[int]) -> None:
        seen.extend(values)

    if ordering == "batch":
        app.on("t", batch=5, name="handle")(handle_batch)
    else:
        app.on("t", ordering=ordering)(handle)

    broker.create_topic("t", 2)
    publish(broker, *range(40), partition=0)
    publish(broker, *range(100, 140), partition=1)
    monkeypatch.setattr("octopus.transports.memory.transport.MemoryConsumer", Unreading)
    monkeypatch.setattr(Unreading, "broken", (P0, 21), raising=False)
    async with working(app, broker) as worker:
        await until(lambda: worker.status().groups and worker.status().groups[0].unreadable)
        publish(broker, *range(40, 60), partition=0)
        publish(broker, *range(140, 160), partition=1)
        await until(lambda: {*range(100, 160)} <= {*seen} and committed(broker, "app.handle", P1) == 60)
        [group] = worker.status().groups
        assert group.unreadable == {"t[0]": "20: the bytes end here"}
    assert {each for each in seen if each < 100} == {*range(20)}
    assert committed(broker, "app.handle", P0) == 20, "what cannot be read is never passed"
