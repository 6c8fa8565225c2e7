"""Partitions that come, go, are lost and come back while their records are on the way."""

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from octopus import Event, Octopus, RetryPolicy
from octopus.errors import ConnectionFailed
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.memory import MemoryBroker
from tests.staged import P0, P1, committed, dead_letters, publish, until, working

Effect = Callable[[str, Event[Any]], Awaitable[None]]


def make(name: str, effect: Effect, **options: Any) -> Octopus:
    """Return an app whose handler calls `effect` with a name for the process."""
    app = Octopus("app")

    @app.on("t", **options)
    async def handle(event: Event[Any]) -> None:
        await effect(name, event)

    return app


def rebalance(broker: MemoryBroker) -> None:
    """Let the group give back and take again, nobody having joined or left."""
    broker._rebalance(broker.group("app.handle"))


async def test_a_revoked_partition_is_drained_committed_and_handed_over(virtual_time: VirtualTime) -> None:
    broker, runs = MemoryBroker(), []
    broker.create_topic("t", 2)

    async def slow(name: str, event: Event[Any]) -> None:
        runs.append((name, event.partition, event.value))
        await asyncio.sleep(4)

    for number in range(6):
        publish(broker, number, partition=number % 2)
    async with working(make("a", slow), broker) as first:
        await until(lambda: len(runs) == 2)
        async with working(make("b", slow), broker) as second:
            await until(lambda: len(runs) == 6, 60)
            await first.caught_up()
            await second.caught_up()
    assert sorted(value for _, _, value in runs) == [*range(6)], "nothing ran twice"
    assert {name for name, _, _ in runs} == {"a", "b"}
    assert committed(broker, "app.handle", P0) == committed(broker, "app.handle", P1) == 3


async def test_a_partition_that_stays_goes_on_while_another_is_taken_away_and_comes_back(
    virtual_time: VirtualTime,
) -> None:
    broker, runs, ended = MemoryBroker(), [], []
    broker.create_topic("t", 2)

    async def slow(_name: str, event: Event[Any]) -> None:
        runs.append((event.partition, event.value))
        await asyncio.sleep(10)
        ended.append((event.partition, event.value))

    for number in range(2):
        for partition in (0, 1):
            publish(broker, number, partition=partition)
    async with working(make("a", slow), broker, worker={"revoke_budget": 3}) as worker:
        await until(lambda: len(runs) == 2)
        (group,) = worker._groups.values()
        await group.revoked({P0})  # as an incremental rebalance has it: the other partition is not mentioned
        assert group.status().partitions == (P1,)
        assert not ended
        await until(lambda: (1, 1) in runs, 30)
        assert committed(broker, "app.handle", P0) == 0
        await group.assigned({P0})
        await worker.caught_up()
    assert [run for run in runs if run[0] == 1] == [(1, 0), (1, 1)], "what stayed ran once, without a pause"
    assert [end for end in ended if end[0] == 0] == [(0, 0), (0, 1)]
    assert committed(broker, "app.handle", P0) == committed(broker, "app.handle", P1) == 2


async def test_what_outlasts_the_budget_is_abandoned_and_runs_at_the_next_owner(virtual_time: VirtualTime) -> None:
    broker, runs, ends = MemoryBroker(), [], []
    broker.create_topic("t", 2)

    async def hang_at_first(name: str, event: Event[Any]) -> None:
        runs.append(name)
        began = virtual_time.time()
        try:
            await asyncio.sleep(1000 if name == "a" else 0)
        except asyncio.CancelledError:
            ends.append(virtual_time.time() - began)
            raise

    for partition in (0, 1):
        publish(broker, 7, partition=partition)
    async with working(make("a", hang_at_first), broker, worker={"revoke_budget": 3, "drain_timeout": 0}):
        await until(lambda: len(runs) == 2)
        async with working(make("b", hang_at_first), broker):
            await until(lambda: "b" in runs, 60)
            assert len(ends) == 2
            assert ends[0] == ends[1] < 4, "one budget for all partitions"
            await until(lambda: 1 in {committed(broker, "app.handle", each) for each in (P0, P1)}, 60)
            assert dead_letters(broker) == []


async def test_lost_partitions_commit_nothing_and_discard_what_is_in_flight(virtual_time: VirtualTime) -> None:
    broker, runs, together = MemoryBroker(), [], Counter[int]()

    async def effect(_name: str, event: Event[Any]) -> None:
        together[event.value] += 1
        assert together[event.value] == 1, "one record runs twice at once"
        runs.append(event.value)
        try:
            await asyncio.sleep(50 if len(runs) <= 3 else 1)
        finally:
            together[event.value] -= 1

    publish(broker, *range(3))
    async with working(make("a", effect, ordering="none"), broker, worker={"commit_interval": 0.1}) as worker:
        await until(lambda: len(runs) == 3)
        broker.expel("app.handle")
        await until(lambda: len(runs) > 3)
        assert committed(broker, "app.handle") == 0
        await worker.caught_up()
        await until(lambda: committed(broker, "app.handle") == 3)
    assert sorted(runs) == [0, 0, 1, 1, 2, 2]


async def test_a_partition_that_comes_straight_back_does_not_run_its_record_twice_at_once() -> None:
    broker, running, most, runs, release = MemoryBroker(), Counter[int](), [0], [], threading.Event()
    app = Octopus("app")

    @app.on("t", ordering="none")
    async def handle(event: Event[Any]) -> None:
        running[event.value] += 1
        most[0] = max(most[0], running[event.value])
        runs.append(event.value)
        try:
            while not release.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)  # a clean-up that takes longer than the group needs to come back
            raise
        finally:
            running[event.value] -= 1

    publish(broker, 0, 1)
    async with working(app, broker, worker={"revoke_budget": 0.02}) as worker:
        await until(lambda: len(runs) == 2)
        rebalance(broker)
        await until(lambda: len(runs) == 4)
        release.set()
        await worker.caught_up()
    assert most == [1]
    assert committed(broker, "app.handle") == 2


async def test_retries_of_a_revoked_partition_begin_anew(virtual_time: VirtualTime) -> None:
    broker, attempts = MemoryBroker(), []

    async def effect(_name: str, event: Event[Any]) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 3:
            raise OSError("busy")

    publish(broker, 0, 1)
    policy = RetryPolicy(attempts=5, backoff=30, jitter=0)
    async with working(make("a", effect, retry=policy), broker) as worker:
        await until(lambda: attempts)
        assert worker.status().groups[0].delayed == 1
        rebalance(broker)
        await until(lambda: len(attempts) == 2)
        assert worker.status().groups[0].delayed == 1
        await worker.caught_up()
        await asyncio.sleep(300)
    assert attempts == [1, 1, 2, 1]


async def test_a_dead_letter_that_waits_for_the_broker_goes_with_its_partition(virtual_time: VirtualTime) -> None:
    broker, attempts = MemoryBroker(), []

    async def effect(_name: str, event: Event[Any]) -> None:
        attempts.append(event.attempt)
        raise ValueError("bad")

    async with working(make("a", effect, retry=1), broker, worker={"revoke_budget": 1}):
        await until(lambda: committed(broker, "app.handle") == 0)
        publish(broker, 0)
        broker.faults.fail_next("send", ConnectionFailed("away"), times=5)
        await until(lambda: attempts)
        await asyncio.sleep(1)
        rebalance(broker)
        await until(lambda: dead_letters(broker), 60)
        await until(lambda: committed(broker, "app.handle") == 1)
    assert attempts == [1, 1]
    assert len(dead_letters(broker)) == 1


async def test_a_late_result_of_a_thread_settles_nothing() -> None:
    broker, release, runs, app = MemoryBroker(), threading.Event(), [], Octopus("app")
    returned = threading.Event()

    @app.on("t")
    def handle(value: int) -> None:
        runs.append(value)
        if len(runs) == 1:
            release.wait(60)
            returned.set()
        elif value == 0:
            raise RuntimeError("the second run is told apart from the first by failing")

    publish(broker, 0)
    async with working(app, broker, worker={"revoke_budget": 0.01}):
        await until(lambda: runs)
        rebalance(broker)
        await until(lambda: len(runs) == 2)
        release.set()
        await until(returned.is_set)
        await asyncio.sleep(0.05)  # in which the result comes back from its thread
        assert committed(broker, "app.handle") == 0


async def test_a_batch_that_is_filling_goes_to_the_next_owner(virtual_time: VirtualTime) -> None:
    broker, batches, app = MemoryBroker(), [], Octopus("app")

    @app.on("t", batch=10, within=20)
    async def handle(values: list[int]) -> None:
        batches.append((virtual_time.time(), values))

    publish(broker, *range(4))
    async with working(app, broker) as worker:
        await until(lambda: any(group.in_flight == 4 for group in worker.status().groups))
        await asyncio.sleep(10)
        moment = virtual_time.time()
        rebalance(broker)
        await worker.caught_up()
    assert [values for _, values in batches] == [[0, 1, 2, 3]]
    assert batches[0][0] > moment + 15


async def test_a_pattern_takes_in_topics_that_are_made_while_it_runs_but_no_dead_letters(
    virtual_time: VirtualTime,
) -> None:
    broker, seen, app = MemoryBroker(), [], Octopus("app")

    @app.on(re.compile("lab-.*"), retry=1)
    async def handle(event: Event[Any]) -> None:
        seen.append((event.topic, event.value))
        raise ValueError("bad")

    publish(broker, 1, topic="lab-a")
    async with working(app, broker) as worker:
        await until(lambda: seen)
        publish(broker, 2, topic="lab-b")
        publish(broker, 3, topic="other")
        await until(lambda: len(seen) == 2)
        await worker.caught_up()
        await asyncio.sleep(10)
        broker.delete_topic("lab-b")
        publish(broker, 4, topic="lab-a")
        await until(lambda: len(seen) == 3)
    assert seen == [("lab-a", 1), ("lab-b", 2), ("lab-a", 4)]


async def test_two_apps_with_different_topics_share_a_group(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    one, two = Octopus("one"), Octopus("two")

    @one.on("a", group="shared")
    async def first(value: int) -> None:
        seen.append(("a", value))

    @two.on("b", group="shared")
    async def second(value: int) -> None:
        seen.append(("b", value))

    async with working(one, broker), working(two, broker):
        publish(broker, 1, topic="a")
        publish(broker, 2, topic="b")
        await until(lambda: len(seen) == 2)
        await until(lambda: len([each for each in broker.group("shared").offsets.values() if each.offset == 1]) == 2)
    assert sorted(seen) == [("a", 1), ("b", 2)]


async def test_members_that_come_and_go_under_load_lose_nothing(virtual_time: VirtualTime) -> None:
    broker, effects, chance = MemoryBroker(), Counter[int](), random.Random(5)
    broker.create_topic("t", 4)
    orders: dict[tuple[int, bytes | None], list[int]] = {}

    async def effect(_name: str, event: Event[Any]) -> None:
        await asyncio.sleep(chance.random() / 2)
        if chance.random() < 0.05:
            raise OSError("now and then")
        effects[event.value] += 1
        orders.setdefault((event.partition, event.key), []).append(event.value)

    for number in range(1200):
        publish(broker, number, key=b"%d" % (number % 40), partition=number % 4)
    options = {"ordering": "key", "retry": RetryPolicy(attempts=0, backoff=0.2)}

    async def visitor(name: str) -> None:
        await asyncio.sleep(chance.random() * 4)
        budget = chance.choice([0, 0.2, 10])
        settings = {"revoke_budget": budget, "drain_timeout": budget}
        async with working(make(name, effect, **options), broker, worker=settings):
            await asyncio.sleep(1 + chance.random() * 6)

    async with working(make("host", effect, **options), broker, worker={"revoke_budget": 1}) as worker:
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(visitor(f"visitor {number}"))
        broker.expel("app.handle")
        await asyncio.sleep(1)
        async with asyncio.timeout(1000):
            await worker.caught_up()
    assert set(effects) == set(range(1200))
    for values in orders.values():
        firsts = list(dict.fromkeys(values))
        assert firsts == sorted(firsts), "first deliveries of a key are in order"
    assert [broker.group("app.handle").offsets[TopicPartition("t", number)].offset for number in range(4)] == [300] * 4
