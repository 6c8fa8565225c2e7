"""Outputs that are visible exactly once although workers are killed and frozen and brokers go away."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from octopus.testing.faults import ChildProcess, EmbeddedBroker, python_module
from tests.support.kafka_cluster import KafkaCluster
from tests.worker.exactly_once import Judge

pytestmark = pytest.mark.process

KAFKA = pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])
SHORT = {"consumer": {"session_timeout": 1.5, "rebalance_timeout": 6}}
"""A frozen member is noticed soon; the embedded broker of tests allows it."""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture(params=["embedded", KAFKA])
async def judge(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Judge]:
    """Of the embedded broker in a process of its own, or of Apache Kafka."""
    if request.param == "kafka":
        async with Judge(request.getfixturevalue("kafka_cluster")) as judge:
            yield judge
    else:
        async with EmbeddedBroker(tmp_path / "broker") as broker, Judge(broker.address) as judge:
            judge.plan.settings = SHORT
            yield judge


@pytest.fixture
def workers(tmp_path: Path) -> "Iterator[Workers]":
    with Workers(tmp_path).running() as workers:
        yield workers


class Workers:
    """Worker processes by name.

    Args:
        directory: For what they write.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, ChildProcess] = {}

    @contextmanager
    def running(self) -> "Iterator[Workers]":
        try:
            yield self
        finally:
            for process in self._processes.values():
                process.thaw()
                process.kill()

    def start(self, name: str, judge: Judge) -> ChildProcess:
        plan = msgspec.json.encode(judge.plan).decode()
        command = python_module("tests.worker.exactly_once", plan)
        process = self._processes[name] = ChildProcess(command, log=self._directory / f"{name}.log")
        return process.start()

    def __getitem__(self, name: str) -> ChildProcess:
        return self._processes[name]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
async def test_kills_at_random_moments_repeat_nothing(seed: int, judge: Judge, workers: Workers) -> None:
    chance = random.Random(seed)
    for name in ("one", "two"):
        workers.start(name, judge)
    for _ in range(3):
        await judge.publish(200)
        await judge.progressed(judge.published - chance.randrange(50, 180))
        await asyncio.sleep(chance.uniform(0, 0.15))  # anywhere between two transactions
        name = chance.choice(["one", "two"])
        workers[name].kill()
        workers.start(name, judge)
    await judge.verdict()


async def test_deaths_in_the_middle_of_transactions_repeat_nothing(judge: Judge, workers: Workers) -> None:
    judge.plan.mortality = 0.04
    judge.plan.takes = 0.02
    deaths = 0

    async def keep_two() -> None:
        nonlocal deaths
        for name in ("one", "two"):
            workers.start(name, judge)
        while True:
            for name in ("one", "two"):
                if not workers[name].is_running:
                    deaths += 1
                    workers.start(name, judge)
            await asyncio.sleep(0.05)

    keeping = asyncio.create_task(keep_two())
    try:
        while deaths < 3:
            await judge.publish(200)
            await judge.progressed(judge.published, timeout=90)
        await judge.verdict()
    finally:
        keeping.cancel()


async def test_a_frozen_owner_that_thaws_is_fenced(judge: Judge, workers: Workers) -> None:
    judge.plan.takes = 0.02
    workers.start("one", judge)
    workers.start("two", judge)
    await judge.publish(400)
    await judge.progressed(100)
    workers["one"].freeze()
    await judge.publish(200)
    await judge.verdict()
    workers["one"].thaw()
    await judge.publish(100)
    await judge.verdict()
    assert workers["one"].is_running


async def test_a_broker_that_restarts_repeats_nothing(broker: EmbeddedBroker, workers: Workers) -> None:
    async with Judge(broker.address) as judge:
        judge.plan.settings = SHORT
        judge.plan.takes = 0.02
        workers.start("one", judge)
        workers.start("two", judge)
        await judge.publish(600)
        for progress in (100, 300):
            await judge.progressed(progress)
            await broker.restart()
        await judge.verdict()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_coordinators_that_move_repeat_nothing(kafka_cluster_of_three: KafkaCluster, workers: Workers) -> None:
    cluster = kafka_cluster_of_three
    async with Judge(cluster.bootstrap) as judge:
        judge.plan.takes = 0.02
        workers.start("one", judge)
        workers.start("two", judge)
        for node in (1, 2, 3):
            await judge.publish(300)
            await judge.progressed(judge.published - 200)
            await asyncio.to_thread(cluster.kill, node)
            await judge.progressed(judge.published - 50)
            await asyncio.to_thread(cluster.restart, node)
        await judge.verdict(timeout=90)
