"""Handlers that hang, fail and take their time, input that is poison or not theirs: scenarios 1 to 10, 17 to 21, 27, 43, 45."""

from collections.abc import Callable

import pytest

from octopus import config
from octopus.testing.history import Began, Note
from tests.faults.jobs import Job
from tests.faults.modes import FREE, across
from tests.faults.test_crashes import mixture
from tests.faults.trial import Trial

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]


@across("key")
@pytest.mark.parametrize(
    "earlier",
    [pytest.param(0, id="a log from 0", marks=pytest.mark.slow), pytest.param(7, id="a group that begins later")],
)
async def test_a_first_record_that_hangs_holds_the_commit_back_until_it_is_finished(
    earlier: int, mode: str, begin: Begin
) -> None:
    async with begin(ordering=mode, partitions=1, start="latest" if earlier else "earliest") as trial:
        await trial.publish(trial.jobs(earlier, wanted=False))
        trial.start("one")
        await trial.until(lambda: (trial.topic, 0) in trial.committed, what="the start is anchored")
        first = trial.jobs(1, "hang")
        await trial.publish([*first, *trial.jobs(40)], keys=100)
        await trial.happened(Began, id=first[0].id)
        if mode in FREE:
            await trial.known_as_settled(earlier + 40)
        assert trial.committed == {(trial.topic, 0): earlier}
        trial.kill("one")
        trial.start("one")
        await trial.verdict(duplicates=0)


@across("none")
async def test_with_hundreds_in_flight_that_end_in_any_order_no_commit_passes_an_unfinished_one(
    mode: str, begin: Begin
) -> None:
    async with begin(ordering=mode, concurrency=300) as trial:
        trial.start("one")
        jobs: list[Job | bytes] = []
        for _ in range(600):
            jobs += trial.jobs(1, takes=trial.chance.uniform(0, 0.5 if mode in FREE else 0.01))
        await trial.publish(jobs, keys=300)
        await trial.verdict(duplicates=0, timeout=60)


@across("partition")
async def test_what_no_handler_sees_moves_the_commit_and_does_not_come_again(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        await trial.publish(trial.jobs(60, wanted=False))
        await trial.settled()
        await trial.publish_in_transaction(trial.jobs(20), commit=True)
        await trial.publish_in_transaction(trial.jobs(20), commit=False)  # at the end of the log, and nothing behind it
        await trial.settled()
        await trial.publish(trial.jobs(4, "fail"), keys=4)  # the last of their partitions
        await trial.settled()
        assert await trial.stop("one") == 0
        began = trial.count(Began)
        await trial.working("one")
        await trial.publish(trial.jobs(20))
        await trial.settled()
        assert trial.count(Began) == began + 20
        report = await trial.verdict(duplicates=0)
        assert (report.finished, report.dead_lettered) == (40, 4)


@across("none")
async def test_a_late_end_of_a_handler_that_lost_its_partition_counts_for_nothing(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, partitions=2) as trial:
        trial.start("one")
        for partition in range(2):
            # beyond the budget for the rebalance, and not to be cancelled
            await trial.publish([*trial.jobs(1, "hang on", takes=4.0), *trial.jobs(10)], partition=partition, keys=100)
        await trial.happened(Began, "one", times=2)
        trial.start("two")
        await trial.happened(Note, "two", what="assigned")
        # each ends where it was lost, and once more at its owner; in batches all that ran with it
        await trial.verdict(duplicates=2 * (8 if mode == "batch" else 1))


@across("batch")
async def test_errors_poison_and_rejections_end_where_they_should_and_hold_nobody_up(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        await trial.working("one", "two")
        await trial.publish(mixture(trial))
        report = await trial.verdict(duplicates=0, timeout=60)
        # a record that is in batches with several of those that fail may be given up with them
        assert report.dead_lettered == 25 or (mode == "batch" and report.dead_lettered > 25)
        assert report.finished == 355 - report.dead_lettered


@across("partition")
@pytest.mark.parametrize("why", ["too many dead letters", "no dead-letter topic"])
async def test_a_group_that_stops_drops_nothing_and_goes_on_when_it_may(why: str, mode: str, begin: Begin) -> None:
    async with begin(ordering=mode, attempts=1) as trial:
        if why == "no dead-letter topic":
            trial.start("one", dead_letter=False)
        else:
            limited = config.merge(trial.settings, {"worker": {"dead_letter_limit": 3}})
            trial.start("one", settings=limited)
        await trial.publish([*trial.jobs(20), *trial.jobs(10, "fail"), *trial.jobs(20)])
        assert await trial.workers["one"].ended(20) == 4
        trial.start("one")
        report = await trial.verdict(duplicates=30)  # what was finished beyond the commit when processing stopped
        assert report.dead_lettered >= 10


@across("key", modes=["key"])
async def test_one_key_that_hangs_among_thousands_holds_up_nobody_else(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        await trial.publish([*trial.jobs(1, "hang"), *trial.jobs(1999)], keys=1000)
        await trial.known_as_settled(1998)  # one more of the same key waits behind it
        trial.kill("one")
        trial.start("one")
        await trial.verdict(duplicates=0)


@across("batch")
async def test_a_partition_that_hangs_does_not_hold_up_the_others(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        await trial.working("one")
        await trial.publish(trial.jobs(1, "hang"), partition=0)
        await trial.happened(Began)
        for partition in range(1, 4):
            await trial.publish(trial.jobs(200), partition=partition)
        await trial.known_as_settled(600)
        trial.kill("one")
        trial.start("one")
        await trial.verdict(duplicates=0)
