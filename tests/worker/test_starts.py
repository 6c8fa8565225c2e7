"""Where consumer groups start to read, on the in-process broker."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from octopus import Event, Octopus
from octopus.errors import PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.base import Commit, Consumer
from octopus.transports.memory import MemoryBroker
from octopus.worker.known_topics import KnownTopics
from octopus.worker.starts import Starts
from tests.staged import P0, P1, committed, killed, publish, until, working


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("earliest", [0, 1, 2, 3]),
        ("latest", [3]),
        (datetime.fromtimestamp(2_000, tz=UTC), [1, 2, 3]),
        (timedelta(seconds=1_500), [2, 3]),
    ],
    ids=["earliest", "latest", "datetime", "timedelta"],
)
async def test_a_new_group_starts_where_its_handler_says(
    start: Any, expected: list[int], virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []
    monkeypatch.setattr("octopus.worker.worker.time.time", lambda: 4_000.0)

    @app.on("t", start=start)
    async def handle(value: int) -> None:
        seen.append(value)

    for number in range(3):
        publish(broker, number, timestamp=(number + 1) * 1_000_000)
    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") is not None)
        publish(broker, 3, timestamp=5_000_000)
        await worker.caught_up()
    assert seen == expected


async def test_latest_is_anchored_so_that_a_crash_right_after_loses_nothing(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", start="latest")
    async def handle(value: int) -> None:
        if not seen:
            seen.append("killed")
            await asyncio.sleep(3600)
        seen.append(value)

    publish(broker, "old")
    async with killed(app, broker, worker={"drain_timeout": 0}):
        await until(lambda: committed(broker, "app.handle") == 1)
        publish(broker, 1, 2)
        await until(lambda: seen)
    publish(broker, 3)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert seen == ["killed", 1, 2, 3]


async def test_a_partition_that_appears_later_is_read_from_its_beginning(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", start="latest")
    async def handle(value: int) -> None:
        seen.append(value)

    publish(broker, "old")
    async with working(app, broker):
        await until(lambda: committed(broker, "app.handle") == 1)
    broker.add_partitions("t", 2)
    publish(broker, 1, partition=1)  # nobody runs, and the topic has been idle all the time
    async with working(app, broker) as worker:
        await until(lambda: seen == [1])
        publish(broker, 2, partition=0)
        await worker.caught_up()
    assert seen == [1, 2]


async def test_two_workers_that_start_a_group_together_mean_the_same_latest(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    broker.create_topic("t", 2)
    for partition in (0, 1):
        publish(broker, "old", partition=partition)

    def make() -> Octopus:
        app = Octopus("app")

        @app.on("t", start="latest")
        async def handle(event: Event[Any]) -> None:
            seen.append((event.partition, event.value))

        return app

    async with working(make(), broker), working(make(), broker):
        await until(lambda: committed(broker, "app.handle", P0) == committed(broker, "app.handle", P1) == 1)
        publish(broker, "new", partition=0)
        publish(broker, "new", partition=1)
        await until(lambda: len(seen) == 2)
    assert sorted(seen) == [(0, "new"), (1, "new")]


async def test_an_error_while_reading_committed_offsets_is_not_no_offset(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", start="latest")
    async def handle(value: int) -> None:
        seen.append(value)

    publish(broker, *range(5))
    broker.group("app.handle").offsets[P0] = Commit(2)
    broker.faults.fail_next("committed", TransportError("the coordinator is loading", retryable=True), times=2)
    async with working(app, broker) as worker:
        await until(lambda: len(seen) == 3, 30)
        await worker.caught_up()
    assert seen == [2, 3, 4]


class OfAnotherGeneration:
    """A group member whose first commit is refused; its topic was made again and has ten events."""

    def __init__(self) -> None:
        self.stored: dict[TopicPartition, Commit] = {}
        self.refusals = [PartitionLost("The group id does not exist.")]
        self.positions: list[int] = []

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(topics, "new")

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit | None]:
        return {each: self.stored.get(each) for each in partitions}

    async def offsets(self, partitions: Collection[TopicPartition], at: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0 if at == "earliest" else 10)

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.stored.update(commits)

    async def seek(self, positions: Mapping[TopicPartition, int], topic_ids: Mapping[str, str]) -> None:
        self.positions.append(positions[P0])

    def known_partitions(self) -> set[TopicPartition]:
        return {P0}


async def test_a_new_topic_is_read_from_its_beginning_also_where_that_could_not_be_committed_at_first() -> None:
    member, known = OfAnotherGeneration(), KnownTopics("earliest")
    known.note("t", "old")
    starts = Starts("app.handle", cast("Consumer", member), known, "latest")
    lost = await starts.find([P0], 1.0)
    again = await starts.find([P0], 2.0)
    later = await starts.find([P0], 3.0)
    assert [each[P0].is_stored for each in (lost, again, later)] == [False, True, True]
    assert member.positions == [0, 0, 0]
