"""When a group fetches: not more often than handlers that compute need it."""

import asyncio
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import pytest

from octopus import Octopus
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.base import Fetched
from octopus.transports.memory import MemoryBroker
from octopus.transports.memory.transport import MemoryConsumer
from octopus.worker import fetching
from octopus.worker.fetching import AHEAD, LONGEST_REST, rest_of
from tests.staged import publish, until, working


@pytest.mark.parametrize(
    ("busy_for", "left", "expected"),
    [
        (0.0, LONGEST_REST, 0.0),
        (AHEAD, LONGEST_REST, 0.0),
        (AHEAD + 0.002, LONGEST_REST, pytest.approx(0.002)),
        (60.0, LONGEST_REST, LONGEST_REST),
        (60.0, 0.0, 0.0),
    ],
    ids=[
        "nothing to do, or nobody knows",
        "they run out soon",
        "until they run out soon",
        "others' records do not wait for all",
        "it was put off for long enough",
    ],
)
def test_a_fetch_is_put_off_while_handlers_have_enough_to_do(busy_for: float, left: float, expected: Any) -> None:
    assert max(0.0, rest_of(busy_for, left)) == expected


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return when records were asked for, in loop time."""
    asked: list[float] = []
    fetch = MemoryConsumer.fetch

    async def noted(self: MemoryConsumer, partitions: Collection[TopicPartition], **limits: Any) -> list[Fetched]:
        if partitions:
            asked.append(asyncio.get_running_loop().time())
        return await fetch(self, partitions, **limits)

    monkeypatch.setattr(MemoryConsumer, "fetch", noted)
    return asked


async def test_handlers_that_fall_behind_are_brought_more_seldom_and_more_at_a_time(
    fetches: list[float], virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "LONGEST_REST", 0.25)
    app, broker, done = Octopus("app"), MemoryBroker(), []
    broker.create_topic("t", 4)

    @app.on("t")
    async def handle(value: int) -> None:
        done.append(value)
        virtual_time.pass_by(0.001)

    async with working(app, broker):
        begun, number = virtual_time.time(), 0
        while number < 2_000:  # twice as many as they can do
            while number <= (virtual_time.time() - begun) * 2_000:
                publish(broker, number, partition=number % 4)
                number += 1
            await asyncio.sleep(0.001)
        behind = [at for at in fetches if at > begun + 0.25]
        await until(lambda: len(done) == number, 60)
    assert min(after - before for before, after in pairwise(behind)) > 0.2


@pytest.mark.parametrize("at_hand", [900, 4000], ids=["less than a fetch", "more than a fetch"])
@pytest.mark.parametrize("suspends", [False, True], ids=["computing", "suspending"])
async def test_a_partition_does_not_wait_for_all_that_another_has_at_hand(
    fetches: list[float], virtual_time: VirtualTime, *, suspends: bool, at_hand: int
) -> None:
    app, broker, done = Octopus("app"), MemoryBroker(), []
    broker.create_topic("t", 2)

    @app.on("t")
    async def handle(value: int) -> None:
        done.append(value)
        if suspends:
            await asyncio.sleep(0.01)
        else:
            virtual_time.pass_by(0.01)

    publish(broker, *[0] * at_hand, partition=0)
    async with working(app, broker):
        await until(lambda: len(done) > 100, 60)
        publish(broker, 1, partition=1)
        await until(lambda: 1 in done, 60)
    assert len(done) < 150, "of nine seconds of work, or more, it waited for half a second at most"
