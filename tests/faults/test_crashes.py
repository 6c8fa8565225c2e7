"""Workers that are killed or freeze: scenarios 11, 12, 14, 15, 22 to 25, 35, 39, 47 and 48."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from octopus import config
from octopus.testing.faults import ChildProcess
from octopus.testing.history import Began, Finished, Note
from tests.faults.jobs import Job
from tests.faults.modes import FREE, MODES, across
from tests.faults.trial import Trial

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]


def mixture(trial: Trial, work: int = 300) -> list[Job | bytes]:
    """Return jobs of every kind that ends, shuffled; 25 of them in the dead-letter topic."""
    jobs: list[Job | bytes] = [
        *trial.jobs(work, takes=0.002),
        *trial.jobs(10, "fail"),
        *trial.jobs(20, "fail once"),
        *trial.jobs(10, "later"),
        *trial.jobs(10, "reject"),
        *trial.jobs(20, wanted=False),
        *trial.poison(5),
    ]
    trial.chance.shuffle(jobs)
    return jobs


@pytest.mark.parametrize("mode", MODES)
async def test_workers_killed_at_random_points_lose_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=MODES.index(mode), durable=True) as trial:
        for name in ("one", "two"):
            trial.start(name)
        for name in ("one", "two", "one"):
            await trial.publish(mixture(trial, 100))
            await trial.progressed(trial.chance.randrange(20, 60))
            trial.kill(name)
            trial.start(name)
        report = await trial.verdict(timeout=60)
        assert report.dead_lettered >= 75  # a batch of unlucky ones may use up the attempts of some that fail once


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", MODES)
async def test_fifty_kills_in_each_mode_lose_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, seed=100 + MODES.index(mode)) as trial:
        # a lasting name lets the next worker take over without waiting for the session of the killed one
        lasting = {
            name: config.merge(trial.settings, {"consumer": {"group_instance_id": name}}) for name in ("one", "two")
        }
        for name, settings in lasting.items():
            trial.start(name, settings=settings)
        for _ in range(50):
            await trial.publish(mixture(trial, 40))
            await trial.progressed(trial.chance.randrange(5, 60), timeout=60)
            name = trial.chance.choice(["one", "two"])
            trial.kill(name)
            trial.start(name, settings=lasting[name])
        await trial.verdict(timeout=120)


@across("partition")
async def test_a_kill_inside_the_first_handler_of_a_group_that_starts_at_latest_loses_nothing(
    mode: str, begin: Begin
) -> None:
    async with begin(ordering=mode, start="latest") as trial:
        await trial.publish(trial.jobs(5, wanted=False))  # from before the group: nobody's business
        trial.start("one")
        await trial.until(lambda: len(trial.committed) == 4, what="the start is anchored")
        await trial.publish([*trial.jobs(1, "die"), *trial.jobs(30)], keys=1)
        await trial.workers["one"].ended(20)
        trial.disturb("kill worker", "one", excuses=0)
        await trial.publish(trial.jobs(10))
        trial.start("one")
        await trial.verdict()


@across("batch")
async def test_a_kill_between_effect_and_commit_repeats_and_does_not_lose(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(20), *trial.jobs(1, "die after"), *trial.jobs(20)])
        await trial.workers["one"].ended(20)
        trial.disturb("kill worker", "one")
        trial.start("one")
        report = await trial.verdict()
        assert report.duplicates >= 1


@across("none", modes=FREE)
async def test_after_a_kill_only_what_was_unfinished_comes_again(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, partitions=1) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(1, "hang"), *trial.jobs(60)], keys=100)
        await trial.happened(Finished, times=60)
        await trial.known_as_settled(60)
        assert trial.committed == {(trial.topic, 0): 0}
        trial.kill("one")
        trial.start("one")
        await trial.verdict(duplicates=0)


@across("key")
async def test_a_frozen_worker_that_thaws_commits_nothing_of_what_others_have(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        await trial.working("one", "two")
        await trial.publish(trial.jobs(400, takes=0.02))
        await trial.happened(Finished, "one")
        await trial.happened(Finished, "two")
        trial.workers["one"].freeze()
        trial.disturb("freeze worker", "one")
        await trial.settled(60)
        trial.workers["one"].thaw()
        await trial.happened(Note, "one", what="lost")
        await trial.publish(trial.jobs(50))
        await trial.verdict()


@across("partition")
async def test_a_worker_alone_that_lost_its_session_begins_anew(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        await trial.publish(trial.jobs(200, takes=0.01))
        await trial.progressed(20)
        trial.workers["one"].freeze()
        trial.disturb("freeze worker", "one")
        await trial.until_group_is("Empty")
        trial.workers["one"].thaw()
        await trial.verdict()
        assert trial.count(Note, "one", what="lost") == 1


@across("key")
async def test_handlers_that_never_return_are_cut_off_and_run_again(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, timeout=0.3) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(100), *trial.jobs(3, "hang"), *trial.jobs(100)])
        await trial.verdict(duplicates=0)


@across("batch")
async def test_a_handler_that_outlasts_the_session_runs_once(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        jobs = trial.jobs(1, takes=trial.session_timeout + 1.0)
        await trial.publish([*trial.jobs(20), *jobs, *trial.jobs(20)])
        await trial.verdict(duplicates=0)
        assert trial.count(Began, id=jobs[0].id) == 1


@across("partition")
async def test_a_handler_that_blocks_the_loop_beyond_the_session_keeps_its_partitions(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        await trial.working("one", "two")
        blocking = trial.jobs(1, "block", takes=trial.session_timeout + 1.0)
        await trial.publish([*trial.jobs(20), *blocking, *trial.jobs(20)])
        await trial.verdict(duplicates=0)
        assert trial.count(Note, what="lost") == 0


@across("partition")
@pytest.mark.parametrize(("deed", "code"), [("exit", 17), ("mischief", 1)])
async def test_what_is_no_exception_ends_the_process_and_settles_nothing(
    deed: str, code: int, mode: str, begin: Begin
) -> None:
    async with begin(ordering=mode, publishes=False) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(20), *trial.jobs(1, deed), *trial.jobs(20)])  # type: ignore[arg-type]
        assert await trial.workers["one"].ended(20) == code
        trial.start("one")
        await trial.verdict(duplicates=0)


@across("partition")
async def test_an_exit_from_inside_a_handler_takes_outputs_on_their_way_with_it_and_they_come_again(
    mode: str, begin: Begin
) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(20), *trial.jobs(1, "exit"), *trial.jobs(20)])
        assert await trial.workers["one"].ended(20) == 17
        trial.start("one")
        await trial.verdict(duplicates=40)  # the loop ends at once, and with it the producer


@across("key")
async def test_a_wall_clock_that_jumps_by_an_hour_harms_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, clock_jumps=3600.0) as trial:
        await trial.working("one")
        # dead letters bear the time at which they were produced, which here says nothing: so none of them
        await trial.publish([*trial.jobs(200, takes=0.005), *trial.jobs(10, "fail once"), *trial.jobs(10, "later")])
        await trial.progressed(50)
        await trial.working("two")
        await trial.verdict(duplicates=0)


@pytest.mark.slow
@across()
async def test_a_machine_that_is_too_busy_only_takes_longer(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        with ExitStack() as neighbours:
            for _ in range(2 * (os.cpu_count() or 1)):
                neighbours.enter_context(ChildProcess([sys.executable, "-c", "while True: pass"]))
            await trial.working("one", "two")
            await trial.publish(mixture(trial))
            await trial.verdict(duplicates=0, timeout=60)
