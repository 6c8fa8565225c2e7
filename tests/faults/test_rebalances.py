"""Members that come and go: scenarios 13, 33, 34, 36, 38 and 40."""

from collections.abc import Callable

import pytest

from octopus import config
from octopus.testing.history import Began, Finished, Note, Stored
from tests.faults.modes import FREE, MODES, across
from tests.faults.test_crashes import mixture
from tests.faults.trial import Trial

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]


async def come_and_go(trial: Trial, rounds: int, work: int) -> None:
    """Let a random member join or leave, again and again under load; one always stays."""
    trial.start("one")
    away = {"two", "three"}
    for _ in range(rounds):
        await trial.publish(mixture(trial, work))
        name = trial.chance.choice(["two", "three"])
        if name in away:
            await trial.working(name)
            away.discard(name)
        else:
            assert await trial.stop(name) == 0
            away.add(name)


@across("key", "batch")
async def test_members_that_come_and_go_under_load_lose_and_repeat_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=MODES.index(mode)) as trial:
        await come_and_go(trial, rounds=4, work=60)
        # what outlasts the budget for a rebalance is left; nothing here does
        await trial.verdict(duplicates=0, timeout=60)


@across("key")
@pytest.mark.parametrize("engine", ["aiokafka", pytest.param("librdkafka", marks=pytest.mark.slow)])
async def test_rolling_restarts_under_slow_handlers_repeat_nothing_and_wait_for_nobody_who_is_gone(
    engine: str, mode: str, begin: Begin, record_property: Callable[[str, object], None]
) -> None:
    async with begin(ordering=mode, partitions=6) as trial:
        # whoever were waited for until its session is over would hold everything up beyond the verdict's patience
        lasting = {"session_timeout": 600, "rebalance_timeout": 600}
        trial.settings = config.merge(trial.settings, {"consumer": {"engine": engine, **lasting}})
        names = ("one", "two", "three")
        await trial.working(*names)
        for name in names:
            await trial.publish(trial.jobs(30, takes=0.02 if mode == "batch" else 0.4))
            await trial.progressed(5)
            assert await trial.stop(name) == 0
            await trial.working(name)
        await trial.verdict(duplicates=0, timeout=90)
        stored = {event.id: event.time for event in trial.events() if isinstance(event, Stored)}
        waits = [event.time - stored[event.id] for event in trial.events() if isinstance(event, Began)]
        record_property("longest wait of an event, s", round(max(waits), 3))
        # One is at the most told of its partitions when each of the three starts, and when each of the others leaves and joins
        told = [trial.count(Note, name, what="assigned") for name in names]
        assert max(told) <= len(names) + 2 * len(names), told


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("assignor", ["sticky", "range", "roundrobin"])
@pytest.mark.parametrize("mode", MODES)
async def test_forty_changes_of_membership_lose_and_repeat_nothing(mode: str, assignor: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=200 + MODES.index(mode)) as trial:
        trial.settings = config.merge(trial.settings, {"consumer": {"assignor": assignor}})
        await come_and_go(trial, rounds=40, work=60)
        await trial.verdict(duplicates=0, timeout=120)


@across("none")
async def test_slow_work_within_the_budget_is_finished_committed_and_not_repeated(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, partitions=2) as trial:
        trial.start("one")
        slow = trial.jobs(2, takes=0.7)
        await trial.happened(Note, "one", what="assigned")
        await trial.publish(trial.jobs(20))
        await trial.settled()
        trial.start("two")
        await trial.until(lambda: "Subscribed" in trial.workers["two"].written(), what="the second member joins")
        for partition in range(2):
            await trial.publish(slow[partition : partition + 1], partition=partition)
        await trial.verdict(duplicates=0)
        # on whichever side of the rebalance they began, they began once
        assert [trial.count(Began, id=job.id) for job in slow] == [1, 1]


@across("none")
async def test_slow_work_beyond_the_budget_goes_to_the_next_owner(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, partitions=2) as trial:
        trial.start("one")
        for partition in range(2):
            await trial.publish([*trial.jobs(1, "hang"), *trial.jobs(30)], partition=partition, keys=100)
        await trial.happened(Began, times=2)
        if mode in FREE:
            await trial.happened(Finished, times=60)
        trial.start("two")
        await trial.verdict(duplicates=0)
        assert trial.count(Began, "two") >= 1


@across("key")
async def test_partitions_that_come_straight_back_run_nothing_twice(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, partitions=6) as trial:
        for name in ("one", "two"):
            trial.start(name)
            await trial.happened(Note, name, what="assigned")
        await trial.publish(trial.jobs(200, takes=0.02 if mode == "batch" else 0.2))
        await trial.progressed(5)
        trial.start("three")  # takes two of six: the others are revoked and come straight back
        await trial.happened(Note, "three", what="assigned")
        await trial.stop("three")
        await trial.verdict(duplicates=0, timeout=60)


@across("key")
async def test_a_static_member_that_restarts_in_time_causes_no_rebalance(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        lasting = config.merge(trial.settings, {"consumer": {"group_instance_id": "lasting", "session_timeout": 10}})
        await trial.working("one")
        trial.start("two", settings=lasting)
        await trial.happened(Note, "two", what="assigned")
        await trial.happened(Note, "one", what="assigned", times=2)
        await trial.publish(trial.jobs(200, takes=0.01))
        await trial.progressed(20)
        trial.kill("two")
        trial.start("two", settings=lasting)
        await trial.happened(Note, "two", what="assigned", times=2)
        await trial.settled()
        assert trial.count(Note, "one", what="assigned") == 2
        await trial.verdict()


@across("partition")
@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_a_partition_that_is_added_is_read_from_its_beginning(start: str, mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, start=start, partitions=2) as trial:
        trial.start("one")
        await trial.until(lambda: len(trial.committed) == 2, what="the start is anchored")
        await trial.publish(trial.jobs(20))
        await trial.add_partitions(4)
        await trial.publish(trial.jobs(20), partition=3)  # before anybody has noticed
        await trial.verdict(duplicates=0)


@across("key")
async def test_retries_and_dead_letters_of_a_revoked_partition_go_on_at_the_next_owner(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, attempts=12) as trial:
        trial.start("one")
        jobs = [*trial.jobs(12, "fail"), *trial.jobs(100)]
        trial.chance.shuffle(jobs)
        await trial.publish(jobs)
        await trial.happened(Finished, "one", failed=True, times=5)
        trial.start("two")
        await trial.happened(Note, "two", what="assigned")
        report = await trial.verdict(duplicates=0, timeout=60)
        # a record that is in batches with several of those that fail may be given up with them
        assert report.dead_lettered == 12 or (mode == "batch" and report.dead_lettered > 12)
        assert report.finished >= 112 - report.dead_lettered
