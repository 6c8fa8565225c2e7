"""What a worker promises about commits, on the in-process broker."""

import asyncio
from typing import Any

import pytest

from octopus import Octopus
from octopus.errors import ConnectionFailed, NotAuthorized, PartitionLost, TransportError
from octopus.testing import VirtualTime
from octopus.transports.memory import MemoryBroker
from tests.staged import P0, committed, dead_letters, killed, publish, until, working


async def test_nothing_is_committed_past_a_first_record_that_hangs(virtual_time: VirtualTime) -> None:
    app, broker, release, seen = Octopus("app"), MemoryBroker(), asyncio.Event(), []

    @app.on("t", ordering="none")
    async def handle(value: int) -> None:
        if value == 0:
            await release.wait()
        seen.append(value)

    publish(broker, *range(20))
    async with working(app, broker):
        await until(lambda: len(seen) == 19)
        for _ in range(10):
            await asyncio.sleep(1)
            assert committed(broker, "app.handle") == 0
        release.set()
        await until(lambda: committed(broker, "app.handle") == 20, 5)


async def test_sampled_commits_never_pass_an_unfinished_record(virtual_time: VirtualTime) -> None:
    app, broker, unfinished = Octopus("app"), MemoryBroker(), set(range(1000))

    @app.on("t", ordering="none", concurrency=1000)
    async def handle(value: int) -> None:
        await asyncio.sleep((value * 7919 % 1000) / 50)
        unfinished.discard(value)

    publish(broker, *range(1000))
    async with working(app, broker, worker={"commit_interval": 0.05}):
        samples = set()
        while unfinished:
            await asyncio.sleep(0.03)
            offset = committed(broker, "app.handle") or 0
            samples.add(offset)
            assert offset <= min(unfinished, default=1000)
        assert len(samples) > 5
    assert committed(broker, "app.handle") == 1000


async def test_compacted_and_filtered_records_do_not_hold_commits_back(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", filter={"kind": ["wanted"]})
    async def handle(value: dict) -> None:
        raise AssertionError("nothing matches")

    publish(broker, *({"kind": "other"} for _ in range(10)))
    for offset in (0, 4, 9):
        broker.remove(P0, offset)
    async with working(app, broker):
        await until(lambda: committed(broker, "app.handle") == 10)


async def test_a_last_record_that_is_dead_lettered_is_committed_while_idle(virtual_time: VirtualTime) -> None:
    app, broker, runs = Octopus("app"), MemoryBroker(), []

    @app.on("t", retry=1)
    async def handle(value: int) -> None:
        runs.append(value)
        raise ValueError("no")

    publish(broker, 1)
    async with working(app, broker):
        await until(lambda: committed(broker, "app.handle") == 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert runs == [1]
    assert len(dead_letters(broker)) == 1


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("the coordinator moved"),
        TransportError("a rebalance is in progress", retryable=True),
        PartitionLost("illegal generation"),
        NotAuthorized("group"),
        TransportError("metadata too large"),
    ],
    ids=lambda error: str(error),
)
async def test_a_commit_that_fails_is_repeated_and_nothing_goes_backwards(
    error: TransportError, virtual_time: VirtualTime
) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)
        publish(broker, *range(5))
        await until(lambda: committed(broker, "app.handle") == 5)
        broker.faults.fail_next("commit", error, times=3)
        publish(broker, *range(5))
        for _ in range(25):
            assert committed(broker, "app.handle") == 5
            await asyncio.sleep(0.1)
        if not isinstance(error, PartitionLost):
            assert worker.status().groups[0].commit_error == str(error)
        await until(lambda: committed(broker, "app.handle") == 10)
        assert worker.status().groups[0].commit_error is None


async def test_a_commit_that_does_not_come_back_is_given_up_and_repeated(virtual_time: VirtualTime) -> None:
    app, broker, slow = Octopus("app"), MemoryBroker(), [True]

    @app.on("t")
    async def handle(value: int) -> None: ...

    async with working(app, broker, worker={"commit_timeout": 2.0}) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)
        consumer = worker._groups["app.handle"]._consumer
        commit = consumer.commit

        async def hang(offsets: Any) -> None:
            if slow:
                slow.pop()
                await asyncio.sleep(3600)
            await commit(offsets)

        consumer.commit = hang  # type: ignore[method-assign]
        publish(broker, 1)
        await until(lambda: worker.status().groups[0].commit_error == "commit timed out", 10)
        await until(lambda: committed(broker, "app.handle") == 1, 10)


async def test_what_settles_while_a_commit_is_under_way_is_committed_by_the_next_one(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", ordering="none")
    async def handle(value: int) -> None:
        await asyncio.sleep(value)

    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)
        consumer = worker._groups["app.handle"]._consumer
        commit = consumer.commit

        async def slow(offsets: Any) -> None:
            await asyncio.sleep(5)
            await commit(offsets)

        consumer.commit = slow  # type: ignore[method-assign]
        publish(broker, 0, 3)
        await until(lambda: committed(broker, "app.handle") == 1, 10)
        assert worker.status().groups[0].in_flight == 0
        await until(lambda: committed(broker, "app.handle") == 2, 10)


async def test_so_many_settled_records_are_committed_before_the_interval_ends(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", concurrency=10)
    async def handle(value: int) -> None:
        await asyncio.sleep(0.01)

    publish(broker, *range(5000))
    began = virtual_time.time()
    async with working(app, broker, worker={"commit_interval": 3600, "commit_every": 500, "drain_timeout": 0}):
        await until(lambda: (committed(broker, "app.handle") or 0) >= 500, 60)
        assert committed(broker, "app.handle") < 5000
        assert virtual_time.time() - began < 60


async def test_an_interval_of_nothing_commits_without_spinning(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    async with working(app, broker, worker={"commit_interval": 0}):
        publish(broker, 1)
        await until(lambda: committed(broker, "app.handle") == 1)


async def test_a_commit_that_breaks_unexpectedly_ends_the_group_loudly(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)

        async def broken(offsets: object) -> None:
            raise ZeroDivisionError

        worker._groups["app.handle"]._consumer.commit = broken  # type: ignore[method-assign]
        publish(broker, 1)
        with pytest.raises(ZeroDivisionError):
            await worker.wait()


async def test_after_a_kill_only_what_was_unfinished_runs_again(virtual_time: VirtualTime) -> None:
    app, broker, runs = Octopus("app"), MemoryBroker(), []
    stuck = {3, 7, 8}

    @app.on("t", ordering="none", concurrency=20)
    async def handle(value: int) -> None:
        runs.append(value)
        if value in stuck:
            await asyncio.sleep(36000)

    publish(broker, *range(12))
    async with killed(app, broker, worker={"drain_timeout": 0}):
        await until(lambda: len(runs) == 12)
        await asyncio.sleep(3)
        assert committed(broker, "app.handle") == 3
    runs.clear()
    stuck.clear()
    async with working(app, broker) as worker:
        await worker.caught_up()
        assert worker.status().groups[0].settled == 3
    assert sorted(runs) == [3, 7, 8]
    assert committed(broker, "app.handle") == 12
