"""Trials whose effects are outputs, exactly once: scenarios 11, 14, 33, 39, 49, 61 and 63."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus.testing.faults import EmbeddedBroker
from octopus.testing.history import Finished
from tests.faults.conftest import KAFKA_SETTINGS
from tests.faults.modes import MODES, across
from tests.faults.test_crashes import mixture
from tests.faults.test_rebalances import come_and_go
from tests.faults.trial import Trial
from tests.support.kafka_cluster import KafkaCluster

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]


@across("key")
async def test_outputs_of_killed_workers_are_visible_once(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=MODES.index(mode), delivery="exactly_once") as trial:
        for name in ("one", "two"):
            trial.start(name)
        for number, name in enumerate(("one", "two", "one")):
            await trial.publish(mixture(trial, 60))
            await trial.publish_in_transaction(trial.jobs(20), commit=number != 1)
            await trial.progressed(trial.chance.randrange(20, 60))
            trial.kill(name)
            trial.start(name)
        report = await trial.verdict(timeout=90)
        assert report.dead_lettered >= 75
        assert report.outputs >= 2 * report.finished + report.dead_lettered


@across()
async def test_outputs_are_visible_once_although_members_come_and_go(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, delivery="exactly_once") as trial:
        await come_and_go(trial, rounds=3, work=40)
        await trial.verdict(timeout=90)


@across()
async def test_outputs_of_a_frozen_worker_that_thaws_are_visible_once(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, delivery="exactly_once") as trial:
        await trial.working("one", "two")
        await trial.publish(trial.jobs(200, takes=0.02))
        await trial.happened(Finished, "one")
        await trial.happened(Finished, "two")
        trial.workers["one"].freeze()
        trial.disturb("freeze worker", "one")
        await trial.settled(60)
        trial.workers["one"].thaw()
        await trial.publish(mixture(trial, 40))
        await trial.verdict(timeout=60)


@across("batch")
async def test_outputs_are_visible_once_although_the_broker_is_killed(mode: str, broker: EmbeddedBroker) -> None:
    async with Trial(broker.directory.parent, broker.address, ordering=mode, delivery="exactly_once") as trial:
        await trial.working("one", "two")
        for _ in range(2):
            await trial.publish(mixture(trial, 60))
            await trial.progressed(trial.chance.randrange(20, 80))
            trial.disturb("kill broker")
            await broker.restart()
        await trial.verdict(timeout=90)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
@across()
async def test_outputs_are_visible_once_although_every_broker_of_a_cluster_is_killed(
    mode: str, kafka_cluster_of_three: KafkaCluster, tmp_path: Path
) -> None:
    cluster = kafka_cluster_of_three
    async with Trial(
        tmp_path, cluster.bootstrap, ordering=mode, settings=KAFKA_SETTINGS, delivery="exactly_once"
    ) as trial:
        await trial.working("one", "two")
        for node in cluster.nodes:  # among them the coordinators of the group and of every transaction
            await trial.publish(mixture(trial, 100))
            await trial.progressed(20, timeout=60)
            trial.disturb("kill broker", str(node))
            await asyncio.to_thread(cluster.kill, node)
            await trial.publish(trial.jobs(100, takes=0.005))
            await trial.progressed(50, timeout=90)
            await asyncio.to_thread(cluster.restart, node)
        await trial.verdict(timeout=120)
