"""Brokers that die, freeze, forget, and networks that are cut or slow: scenarios 16, 49 to 52, 54 and 55."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from octopus.broker.throttling import Resource
from octopus.testing.faults import Direction, EmbeddedBroker, TcpProxy
from octopus.testing.history import Finished, Note
from tests.faults.conftest import GENUINE, KAFKA_SETTINGS
from tests.faults.modes import MODES, across
from tests.faults.test_crashes import mixture
from tests.faults.trial import Trial
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_quotas import set_quotas

pytestmark = pytest.mark.process

OUTAGE_EXCUSES = 350
"""What was fetched before an outage is handled during it, and what is published right after it may be handled before the
worker learns that its session ended meanwhile; none of that can be committed, and all runs again, once: 300 records and 50."""


Begin = Callable[..., Trial]


class Line(NamedTuple):
    """The network before a broker.

    Attributes:
        proxy: What it goes through.
        begin: Begins a trial behind it.
    """

    proxy: TcpProxy
    begin: Begin


@pytest.fixture(params=["embedded", GENUINE])
async def line(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Line]:
    """A broker behind a proxy: an embedded one, or one of Apache Kafka, which has to advertise it and so is its own."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy("127.0.0.1:1"))
        if request.param == "kafka":
            cluster = KafkaCluster(directory=tmp_path / "kafka", advertised=[proxy.port])
            (proxy.target,) = cluster.listening
            stack.push_async_callback(asyncio.to_thread, cluster.stop)
            await asyncio.to_thread(cluster.start)
            yield Line(proxy, partial(Trial, tmp_path, cluster.bootstrap, settings=KAFKA_SETTINGS))
        else:
            broker = EmbeddedBroker(tmp_path / "broker", advertised_port=proxy.port)
            proxy.target = (await stack.enter_async_context(broker)).address
            yield Line(proxy, partial(Trial, tmp_path, proxy.address))


# ── the broker ────────────────────────────────────────────────────────────────────────────────────────────────────────


@across("partition", "batch")
async def test_a_broker_that_is_killed_under_load_loses_nothing(mode: str, broker: EmbeddedBroker) -> None:
    async with Trial(broker.directory.parent, broker.address, ordering=mode, seed=MODES.index(mode)) as trial:
        await trial.working("one", "two")
        for _ in range(2):
            await trial.publish(mixture(trial, 100))
            await trial.progressed(trial.chance.randrange(20, 80))
            trial.disturb("kill broker")
            await broker.restart()
        await trial.verdict(timeout=60)


@across("key")
async def test_a_broker_that_freezes_and_thaws_loses_nothing(mode: str, broker: EmbeddedBroker) -> None:
    async with Trial(broker.directory.parent, broker.address, ordering=mode) as trial:
        await trial.working("one", "two")
        await trial.publish(trial.jobs(300, takes=0.01))
        await trial.progressed(50)
        broker.process.freeze()
        trial.disturb("freeze broker", excuses=OUTAGE_EXCUSES)
        await asyncio.sleep(4)  # longer than any request may take
        broker.process.thaw()
        await trial.publish(trial.jobs(50))
        await trial.verdict(timeout=60)


@across("key")
@pytest.mark.parametrize("seconds", [5, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
async def test_an_outage_ends_without_a_restart_of_the_workers(
    seconds: float, mode: str, broker: EmbeddedBroker
) -> None:
    async with Trial(broker.directory.parent, broker.address, ordering=mode) as trial:
        await trial.working("one", "two")
        await trial.publish(trial.jobs(300, takes=0.01))
        await trial.progressed(50)
        broker.process.kill()
        trial.disturb("kill broker", excuses=OUTAGE_EXCUSES)
        await asyncio.sleep(seconds)
        await broker.start()
        await trial.publish(trial.jobs(50))
        await trial.settled(90)
        assert all(worker.is_running for worker in trial.workers.values()), trial.story()
        await trial.verdict()


@across("partition")
async def test_of_a_broker_that_lost_its_latest_records_nothing_that_is_there_is_skipped(
    mode: str, broker: EmbeddedBroker
) -> None:
    async with Trial(broker.directory.parent, broker.address, ordering=mode, partitions=1) as trial:
        await trial.working("one")
        await trial.publish(trial.jobs(40))
        await trial.settled()
        then = broker.remember()
        await trial.publish(trial.jobs(40))
        await trial.settled()
        await broker.forget_since(then)
        fresh = trial.jobs(21)
        await trial.publish(
            fresh[:1]
        )  # refused at first, since the broker has forgotten what this producer sent; sent again
        await trial.publish(fresh[1:])  # at offsets that other records had before, like the first
        for job in fresh:
            await trial.happened(Finished, id=job.id)
        assert trial.count(Finished) == 101


@across("partition")
async def test_a_fetch_task_that_dies_in_silence_is_replaced(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one", fetch_dies_after=3.0)
        await trial.publish(trial.jobs(20))
        await trial.happened(Note, "one", what="fetch task dies")
        trial.disturb("fetch task dies")
        await trial.publish(trial.jobs(50))
        await trial.verdict()
        assert trial.count(Note, "one", what="worker starts") == 1


# ── the network ───────────────────────────────────────────────────────────────────────────────────────────────────────


@across("key")
@pytest.mark.parametrize("sessions", [0.5, 2.0], ids=["shorter than the session", "longer than the session"])
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_network_that_is_cut_one_way_loses_nothing(
    direction: Direction, sessions: float, mode: str, line: Line
) -> None:
    proxy, begin = line
    async with begin(ordering=mode) as trial:
        await trial.working("one")
        await trial.publish(trial.jobs(300, takes=0.01))
        await trial.progressed(30)
        proxy.cut(direction)
        trial.disturb("cut network", excuses=OUTAGE_EXCUSES)
        await asyncio.sleep(sessions * trial.session_timeout)
        proxy.heal()
        await trial.publish(trial.jobs(50))
        await trial.verdict(timeout=60)


@across("key")
async def test_connections_that_are_reset_again_and_again_lose_nothing(mode: str, line: Line) -> None:
    proxy, begin = line
    async with begin(ordering=mode) as trial:
        await trial.working("one")
        for _ in range(5):
            await trial.publish(trial.jobs(60, takes=0.01))
            await trial.progressed(20, timeout=60)
            trial.disturb("reset connections")
            proxy.reset()
        await trial.verdict(timeout=60)


@across("batch")
@pytest.mark.parametrize("rate", [20_000.0, 200_000.0])
async def test_a_narrow_network_only_takes_longer(rate: float, mode: str, line: Line) -> None:
    proxy, begin = line
    async with begin(ordering=mode) as trial:
        await trial.working("one")
        proxy.rate = rate
        await trial.publish(trial.jobs(200))
        await trial.verdict(duplicates=0, timeout=60)


QUOTAS: list[tuple[Resource, float, float]] = [
    ("produce", 4000.0, 2000.0),
    ("fetch", 4000.0, 2000.0),
    ("request", 25.0, 0.2),
]
"""A second of the embedded broker: bytes, bytes, requests. The same of Kafka, which means it over eleven seconds, but for
requests: percent of the time of a thread."""


@across("key")
@pytest.mark.parametrize(("resource", "rate", "_"), QUOTAS, ids=[resource for resource, *_ in QUOTAS])
async def test_a_broker_that_throttles_only_takes_longer(
    resource: Resource, rate: float, _: float, mode: str, tmp_path: Path
) -> None:
    """Nobody is evicted, nothing is repeated, and nothing that is throttled is given up."""
    async with (
        EmbeddedBroker(tmp_path / "broker", quotas={resource: rate}) as broker,
        Trial(tmp_path, broker.address, ordering=mode) as trial,
    ):
        await trial.working("one", "two")
        for _ in range(3):
            await trial.publish(mixture(trial, 100))
        await assert_it_was_only_slower(trial)


@pytest.mark.kafka
@pytest.mark.slow
@across()
@pytest.mark.parametrize(("resource", "_", "rate"), QUOTAS, ids=[resource for resource, *_ in QUOTAS])
async def test_the_quotas_of_kafka_only_cost_time(
    resource: Resource, _: float, rate: float, mode: str, kafka_cluster: str, tmp_path: Path
) -> None:
    settings = {
        "consumer": {"session_timeout": 6, "rebalance_timeout": 12},
        "producer": {"request_timeout": 10, "delivery_timeout": 60},
    }
    async with Trial(tmp_path, kafka_cluster, ordering=mode, settings=settings) as trial:
        await asyncio.to_thread(set_quotas, kafka_cluster, trial.app, {resource: rate})
        await trial.working("one", "two")
        for _ in range(3):
            await trial.publish(mixture(trial, 100))
        if resource == "request":
            # Over this one Kafka empties every fetch, so how far anybody gets depends on the machine: then there is more.
            await asyncio.sleep(5)
            await asyncio.to_thread(set_quotas, kafka_cluster, trial.app, {resource: 1000.0})
        await assert_it_was_only_slower(trial)


async def assert_it_was_only_slower(trial: Trial) -> None:
    report = await trial.verdict(duplicates=0, timeout=90)
    # a record that is in batches with several of those that fail may be given up with them
    assert report.dead_lettered == 75 or (trial.ordering == "batch" and report.dead_lettered > 75)
    assert trial.count(Note, what="lost") == 0
    said = "".join(worker.written() for worker in trial.workers.values())
    assert "a quota is used up" in said, "it was throttled at all"
    assert "timed out" not in said.lower()


@across("partition")
@pytest.mark.parametrize(
    ("delay", "loss"),
    [(0.03, 0.02), pytest.param(0.15, 0.02, marks=pytest.mark.slow)],
    ids=["60 ms there and back", "300 ms there and back"],
)
async def test_a_far_away_broker_costs_no_throughput(delay: float, loss: float, mode: str, line: Line) -> None:
    """What takes a round trip (fetch, commit) must not be waited for by the records: 400 of 20 ms, four at once, 2 s."""
    proxy, begin = line
    async with begin(ordering=mode) as trial:
        await trial.working("one")
        proxy.delay, proxy.loss = delay, loss
        await trial.publish(trial.jobs(200))
        await trial.settled()
        jobs = trial.jobs(400, takes=0.02)
        began = time.monotonic()
        await trial.publish(jobs)
        published = time.monotonic() - began
        await trial.happened(Finished, times=600, timeout=30)
        ran = [event.time for event in trial.events("one") if isinstance(event, Finished) and int(event.id) >= 200]
        assert max(ran) - min(ran) < 2 * 2.0 + published
        await trial.verdict(duplicates=0)


# ── genuine Kafka ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
@across()
@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_every_broker_of_a_cluster_goes_and_comes_back_under_load(
    how: str, mode: str, kafka_cluster_of_three: KafkaCluster, tmp_path: Path
) -> None:
    cluster = kafka_cluster_of_three
    async with Trial(tmp_path, cluster.bootstrap, ordering=mode, settings=KAFKA_SETTINGS) as trial:
        await trial.working("one", "two")
        for node in cluster.nodes:  # among them the coordinator of the group and the leader of each partition
            await trial.publish(mixture(trial, 100))
            await trial.progressed(20, timeout=60)
            trial.disturb(f"{how} broker", str(node))
            await asyncio.to_thread(getattr(cluster, how), node)
            await trial.publish(trial.jobs(100, takes=0.005))
            await trial.progressed(50, timeout=90)
            await asyncio.to_thread(cluster.restart if how == "kill" else cluster.resume, node)
        await trial.verdict(timeout=120)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(400)
@across()
async def test_an_outage_of_a_whole_cluster_ends_without_a_restart_of_the_workers(
    mode: str, kafka_cluster_of_three: KafkaCluster, tmp_path: Path
) -> None:
    cluster = kafka_cluster_of_three
    async with Trial(tmp_path, cluster.bootstrap, ordering=mode, settings=KAFKA_SETTINGS) as trial:
        await trial.working("one", "two")
        await trial.publish(trial.jobs(300, takes=0.01))
        await trial.progressed(50)
        trial.disturb("kill broker", excuses=OUTAGE_EXCUSES)
        for node in cluster.nodes:
            await asyncio.to_thread(cluster.kill, node)
        await asyncio.sleep(120)  # the outage
        await asyncio.to_thread(cluster.heal)
        await trial.publish(trial.jobs(50))
        await trial.settled(120)
        assert all(worker.is_running for worker in trial.workers.values()), trial.story()
        await trial.verdict()
