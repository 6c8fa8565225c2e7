"""The second engine in real workers: scenarios 11, 33, 34, 37, 38, 49, 50, 53 and 56 once more, with librdkafka.

The quick suite has a few of each on the embedded broker; the rest, and genuine Kafka with KIP-848, is slow.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from octopus import config
from octopus.testing.faults import EmbeddedBroker
from octopus.testing.history import Began, Finished, Note
from tests.faults.conftest import KAFKA_SETTINGS
from tests.faults.test_crashes import mixture
from tests.faults.test_rebalances import MODES, come_and_go
from tests.faults.trial import Trial
from tests.transports.engines import ENGINES

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]
SLOW, GENUINE = pytest.mark.slow, [pytest.mark.kafka, pytest.mark.slow]

ON_BROKERS = [
    "embedded cooperative",
    pytest.param("embedded eager", marks=SLOW),
    *[pytest.param(f"kafka {engine}", marks=GENUINE) for engine in ENGINES],
]


@pytest.fixture(params=ON_BROKERS)
def begin(request: pytest.FixtureRequest, tmp_path: Any) -> Begin:
    """Begins a trial with workers on librdkafka."""
    where, engine = request.param.split()
    own = {"consumer": ENGINES[engine]}
    if where == "kafka":
        address, own = request.getfixturevalue("kafka_cluster"), config.merge(KAFKA_SETTINGS, own)
    else:
        address = request.getfixturevalue("broker").address

    def made(**options: Any) -> Trial:
        return Trial(tmp_path, address, **options | {"settings": config.merge(own, options.get("settings", {}))})

    return made


@pytest.mark.parametrize("mode", ["key", *[pytest.param(mode, marks=SLOW) for mode in MODES if mode != "key"]])
async def test_members_that_come_and_go_under_load_lose_and_repeat_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=300 + MODES.index(mode)) as trial:
        await come_and_go(trial, rounds=4, work=60)
        await trial.verdict(duplicates=0, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
async def test_forty_changes_of_membership_lose_and_repeat_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=400 + MODES.index(mode)) as trial:
        await come_and_go(trial, rounds=40, work=60)
        await trial.verdict(duplicates=0, timeout=120)


async def test_slow_work_beyond_the_budget_goes_to_the_next_owner(begin: Begin) -> None:
    async with begin(ordering="none", partitions=2) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(1, "hang")], partition=0)
        await trial.publish([*trial.jobs(1, "hang")], partition=1)
        await trial.publish(trial.jobs(60))
        await trial.happened(Finished, times=60)
        trial.start("two")
        await trial.happened(Note, "two", what="assigned", timeout=60)
        await trial.stop("one")  # what it kept hangs there for ever
        await trial.verdict(duplicates=0, timeout=60)
        assert trial.count(Began, "two") >= 1


async def test_a_static_member_that_restarts_in_time_causes_no_rebalance(begin: Begin) -> None:
    async with begin(ordering="key") as trial:
        lasting = config.merge(trial.settings, {"consumer": {"group_instance_id": "lasting", "session_timeout": 10}})
        await trial.working("one")
        trial.start("two", settings=lasting)
        await trial.happened(Note, "two", what="assigned", timeout=60)
        await trial.publish(trial.jobs(200, takes=0.01))
        await trial.progressed(20)
        before = trial.count(Note, "one", what="revoked"), trial.count(Note, "one", what="assigned")
        assert await trial.stop("two") == 0
        trial.start("two", settings=lasting)
        await trial.happened(Note, "two", what="assigned", times=2, timeout=60)
        await trial.settled(60)
        after = trial.count(Note, "one", what="revoked"), trial.count(Note, "one", what="assigned")
        assert after == before, "the other member noticed nothing"
        await trial.verdict(duplicates=0)


async def test_workers_killed_at_random_points_lose_nothing(begin: Begin) -> None:
    async with begin(ordering="key", seed=11) as trial:
        await trial.working("one")
        for _ in range(3):
            await trial.publish(mixture(trial, 100))
            await asyncio.sleep(trial.chance.uniform(0.1, 0.6))
            trial.kill("one")
            trial.start("one")
        await trial.verdict(timeout=120)


async def test_a_stop_under_load_repeats_nothing(begin: Begin) -> None:
    async with begin(ordering="none") as trial:
        await trial.working("one")
        await trial.publish(trial.jobs(200, takes=0.02))
        await trial.progressed(20)
        assert await trial.stop("one") == 0
        trial.start("one")
        await trial.verdict(duplicates=0, timeout=60)


async def test_a_broker_that_is_killed_under_load_is_waited_for(broker: EmbeddedBroker) -> None:
    settings = {"consumer": ENGINES["cooperative"]}
    async with Trial(broker.directory.parent, broker.address, ordering="key", settings=settings) as trial:
        await trial.working("one", "two")
        for _ in range(2):
            await trial.publish(mixture(trial, 100))
            await trial.progressed(20)
            trial.disturb("kill broker")
            await broker.restart()
        await trial.verdict(timeout=60)
