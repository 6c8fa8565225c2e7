"""What ends a run is told: groups that stop while others finish, commits that fail at the end, groups that nobody can read."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from octopus import Octopus
from octopus.errors import ConnectionFailed, CorruptBatch, HandlerStopped, NotAuthorized, TransportError
from octopus.routing import Delivery
from octopus.testing import VirtualTime
from octopus.transports.memory import MemoryBroker
from octopus.transports.memory.transport import MemoryConsumer
from octopus.worker import Worker
from octopus.worker.status import last_line, unreadable_of
from tests.staged import P0, P1, committed, publish, until, working


async def test_a_partition_that_cannot_be_read_is_never_caught_up_and_never_waited_for(
    virtual_time: VirtualTime,
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        await asyncio.sleep(1)
        seen.append(value)

    broker.create_topic("t", 2)
    broker.faults.unreadable[P0] = (2, CorruptBatch("the checksum is wrong"))
    publish(broker, 0, 1, 2, 3, partition=0)
    publish(broker, 10, 11, 12, 13, 14, 15, partition=1)
    async with working(app, broker) as worker:
        with pytest.raises(HandlerStopped, match=r"app.handle cannot read t\[0\]: the checksum is wrong"):
            await worker.caught_up()
        assert sorted(seen) == [0, 1, 10, 11, 12, 13, 14, 15], "everything that can be read is handled first"
    assert (committed(broker, "app.handle"), committed(broker, "app.handle", P1)) == (2, 6)
    assert [*worker.status().groups[0].unreadable] == ["t[0]"], "also known at the very end"


async def test_what_nobody_could_read_is_left_also_in_a_run_that_ends_with_its_backlog(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MemoryConsumer, "end_offset", lambda self, partition: None
    )  # what is never fetched tells no end
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    broker.create_topic("t", 2)
    publish(broker, 10, 11, partition=1)
    broker.faults.unreadable[P0] = (0, CorruptBatch("the checksum is wrong"))
    async with working(app, broker) as worker:
        await until(lambda: unreadable_of(worker.status()))
        publish(broker, 0, 1, 2, partition=0)
        with pytest.raises(HandlerStopped, match="the checksum is wrong"):
            await worker.caught_up()
    assert worker.status().groups[0].lag == 3
    assert ", 3 left in " in last_line(worker.status(), is_well=False, is_caught_up=False)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_where_nothing_can_be_read_that_is_said_at_once(delivery: Delivery, virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    broker.faults.unreadable[P0] = (0, CorruptBatch("the checksum is wrong"))
    publish(broker, 0)

    @app.on("t", delivery=delivery)
    async def handle(value: int) -> None: ...

    async with working(app, broker) as worker:
        with pytest.raises(HandlerStopped, match="the checksum is wrong"):
            await worker.caught_up()


async def test_a_group_that_the_broker_refuses_is_said_when_the_others_caught_up(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), Counter[str]()

    for name in ("one", "two"):

        async def handle(value: int, name: str = name) -> None:
            await asyncio.sleep(1)
            seen[name] += 1

        app.on("t", name=name)(handle)

    async with working(app, broker) as worker:
        broker.faults.fail_next("fetch", NotAuthorized("not yours"))  # whoever comes first
        publish(broker, *range(5))
        with pytest.raises(NotAuthorized):
            await worker.caught_up()
        (refused,) = [group.group for group in worker.status().groups if group.failure]
    assert seen["one" if refused == "app.two" else "two"] == 5


async def test_a_group_that_stops_while_it_drains_has_stopped(virtual_time: VirtualTime) -> None:
    app, broker, began = Octopus("app"), MemoryBroker(), []

    @app.on("t", retry=1, dead_letter=False)
    async def handle(value: int) -> None:
        began.append(value)
        await asyncio.sleep(5)
        raise ValueError("no")

    publish(broker, 0)
    async with working(app, broker) as worker:
        await until(lambda: began)
    (failure,) = worker.failures
    assert isinstance(failure, HandlerStopped)
    assert worker.status().groups[0].stopped


async def test_what_finishes_while_it_drains_is_committed_at_once(virtual_time: VirtualTime) -> None:
    app, broker, began = Octopus("app"), MemoryBroker(), []

    @app.on("t", ordering="none", concurrency=2)
    async def handle(value: int) -> None:
        began.append(value)
        await asyncio.sleep(2 if value == 0 else 25)

    publish(broker, 0, 1)
    seen: list[int | None] = []

    async def look() -> None:
        await asyncio.sleep(10)
        seen.append(committed(broker, "app.handle"))

    async with working(app, broker, worker={"drain_timeout": 30}):
        await until(lambda: len(began) == 2)
        looking = asyncio.create_task(look())
    await looking
    assert seen == [1], "whoever kills it in the middle of the drain repeats only what runs"
    assert committed(broker, "app.handle") == 2


@asynccontextmanager
async def about_to_commit(broker: MemoryBroker, delivery: Delivery) -> AsyncIterator[Worker]:
    """Work until two records are done, and neither is committed before the worker stops."""
    app, seen = Octopus("app"), []

    @app.on("t", delivery=delivery)
    async def handle(value: int) -> None:
        seen.append(value)

    publish(broker, 0, 1)
    slow = {"commit_interval": 3600, "transaction_interval": 3600}
    async with working(app, broker, worker=slow) as worker:
        await until(lambda: len(seen) == 2)
        yield worker


@pytest.mark.parametrize(
    ("delivery", "step"), [("at_least_once", "commit"), ("at_least_once", "topic_ids"), ("exactly_once", "topic_ids")]
)
async def test_a_last_commit_that_fails_is_tried_again(
    delivery: Delivery, step: str, virtual_time: VirtualTime
) -> None:
    broker = MemoryBroker()
    async with about_to_commit(broker, delivery) as worker:
        broker.faults.fail_next(step, ConnectionFailed("away"), times=3)
    assert committed(broker, "app.handle") == 2
    assert worker.failures == []


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_what_cannot_be_committed_at_the_end_is_a_failure(delivery: Delivery, virtual_time: VirtualTime) -> None:
    broker = MemoryBroker()
    async with about_to_commit(broker, delivery) as worker:
        broker.faults.fail_next("commit", ConnectionFailed("away"), times=10_000)
        broker.faults.fail_next("end", ConnectionFailed("away"), times=10_000)
    assert committed(broker, "app.handle") == 0
    assert [type(each) for each in worker.failures] == [
        ConnectionFailed if delivery == "at_least_once" else TransportError
    ]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_where_nobody_says_which_topics_are_there_the_last_commit_is_a_failure(
    delivery: Delivery, virtual_time: VirtualTime
) -> None:
    broker = MemoryBroker()
    async with about_to_commit(broker, delivery) as worker:
        broker.faults.fail_next("topic_ids", ConnectionFailed("away"), times=10_000)
    assert committed(broker, "app.handle") == 0
    assert [type(each) for each in worker.failures] == [ConnectionFailed]


async def test_groups_that_somebody_cancels_have_not_ended_well(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    async with working(app, broker) as worker:
        await until(lambda: any(group.partitions for group in worker.status().groups))
        for task in asyncio.all_tasks():
            if task.get_name().startswith("octopus group"):
                task.cancel()
        with pytest.raises(RuntimeError, match="cancelled from outside"):
            await worker.wait()
        with pytest.raises(RuntimeError, match="cancelled from outside"):
            await worker.caught_up()


async def test_handlers_keep_their_drain_time_when_partitions_are_taken_away_meanwhile(
    virtual_time: VirtualTime,
) -> None:
    broker, runs = MemoryBroker(), Counter[int]()
    broker.create_topic("t", 2)

    def slow() -> Octopus:
        app = Octopus("app")

        @app.on("t")
        async def handle(value: int) -> None:
            runs[value] += 1
            await asyncio.sleep(20)

        return app

    publish(broker, 0, partition=0)
    publish(broker, 1, partition=1)
    async with working(slow(), broker, worker={"revoke_budget": 1, "drain_timeout": 60}):
        await until(lambda: len(runs) == 2)
        joining = asyncio.create_task(_join_later(slow(), broker))
        await asyncio.sleep(0.5)
    await joining
    assert runs == {0: 1, 1: 1}


async def _join_later(app: Octopus, broker: MemoryBroker) -> None:
    await asyncio.sleep(2)
    async with working(app, broker) as worker:
        await worker.caught_up()
