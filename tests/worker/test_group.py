"""One consumer group: anchors, what a broken consumer may do to it, and how it looks back."""

import asyncio
import logging

import pytest

from octopus import Octopus
from octopus.errors import PartitionLost, TransportError
from octopus.runner import runner
from octopus.testing import VirtualTime
from octopus.transports.base import Commit
from octopus.transports.memory import MemoryBroker
from octopus.worker.anchors import Anchor
from tests.staged import P0, P1, committed, publish, until, working


@pytest.mark.parametrize(
    ("metadata", "anchor"),
    [
        ("octopus-anchor-1 4 12.500", Anchor(4, 12.5)),
        ("octopus-anchor-1 four 12.5", None),
        ("octopus-anchor-2 4 12.5", None),
        ("octopus-offsets-1 5 abc AA==", None),
        ("", None),
        ("whatever somebody wrote", None),
    ],
    ids=["an anchor", "damaged", "another version", "a map", "nothing", "text"],
)
def test_an_anchor_says_when_a_group_began(metadata: str, anchor: Anchor | None) -> None:
    assert Anchor.read(metadata) == anchor
    assert anchor is None or anchor.text == metadata


async def test_an_anchor_that_comes_too_late_for_its_owner_does_no_harm(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", start="latest")
    async def handle(value: int) -> None:
        seen.append(value)

    publish(broker, "old")
    broker.faults.fail_next("commit", PartitionLost("a rebalance came in between"))
    with caplog.at_level(logging.INFO):
        async with working(app, broker):
            await until(lambda: committed(broker, "app.handle") == 1)
            publish(broker, 1)
            await until(lambda: seen == [1])
    assert "not anchored: a rebalance came in between" in caplog.text


async def test_a_group_that_made_progress_before_there_were_anchors_reads_new_partitions_from_their_beginning(
    virtual_time: VirtualTime,
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", start="latest")
    async def handle(value: int) -> None:
        seen.append(value)

    broker.create_topic("t", 2)
    publish(broker, 0, partition=0)
    publish(broker, 1, partition=1)
    broker.group("app.handle").offsets[P0] = Commit(1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert seen == [1]
    assert committed(broker, "app.handle", P1) == 1


async def test_a_partition_that_its_first_owner_never_anchored_starts_when_the_group_began(
    virtual_time: VirtualTime,
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", start="latest")
    async def handle(value: int) -> None:
        seen.append(value)

    broker.create_topic("t", 2)
    publish(broker, 1, partition=1, timestamp=1_000_000)
    publish(broker, 2, partition=1, timestamp=3_000_000)
    broker.group("app.handle").offsets[P0] = Commit(0, Anchor(2, 2_000.0).text)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert seen == [2]


async def test_an_offset_map_that_nobody_understands_is_no_error(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    publish(broker, *range(3))
    broker.group("app.handle").offsets[P0] = Commit(1, "octopus-offsets-1 1 00000000 garbage")
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert seen == [1, 2]


async def test_a_consumer_that_breaks_lets_handlers_finish_and_commits_what_it_can(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        await asyncio.sleep(2)
        seen.append(value)

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await asyncio.sleep(1)
        broker.faults.fail_next("fetch", TransportError("reset", retryable=True))
        await worker.caught_up()
    assert seen == [0, 1], "nothing ran twice"
    assert committed(broker, "app.handle") == 2


async def test_a_handler_that_does_not_end_is_named_when_the_group_leaves(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, broker, enough = Octopus("app"), MemoryBroker(), []
    monkeypatch.setattr(runner, "CLOSE_TIMEOUT", 1.0)

    @app.on("t")
    async def handle(value: int) -> None:
        while not enough:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    publish(broker, 0)
    async with working(app, broker, worker={"drain_timeout": 1}):
        await asyncio.sleep(1)
    assert "1 handlers did not finish within 1 s" in caplog.text
    assert "do not end although they were cancelled" in caplog.text
    assert committed(broker, "app.handle") == 0
    enough.append(True)
    await asyncio.sleep(4000)


async def test_what_was_settled_is_counted_over_rebalances(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", filter={"kind": ["wanted"]})
    async def handle(value: dict) -> None: ...

    publish(broker, {"kind": "wanted"}, {"kind": "other"})
    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 2)
        broker.expel("app.handle")
        await asyncio.sleep(1)
        publish(broker, {"kind": "wanted"})
        await worker.caught_up()
        status = worker.status().groups[0]
    assert (status.settled, status.skipped, status.done) == (3, 1, 2)
