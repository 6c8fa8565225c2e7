"""Workers that are asked to stop: scenarios 56 to 58."""

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from octopus import config
from octopus.testing.faults import EmbeddedBroker
from octopus.testing.history import Began, Finished, Note
from octopus.worker.signals import SAME_STOP
from tests.faults.modes import FREE, across
from tests.faults.trial import Trial

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]


@pytest.mark.parametrize("mode", ["partition", "key", "none", "batch", "thread"])
async def test_a_stop_under_load_finishes_what_runs_commits_it_and_repeats_nothing(mode: str, begin: Begin) -> None:
    plan = {"kind": "thread", "ordering": "key"} if mode == "thread" else {"ordering": mode}
    async with begin(**plan) as trial:
        trial.start("one")
        await trial.publish(trial.jobs(200, takes=0.02))
        for _ in range(2):
            await trial.progressed(20)
            assert await trial.stop("one") == 0
            trial.start("one")
        await trial.verdict(duplicates=0)


@across("none")
async def test_a_handler_that_outlasts_the_grace_is_left_and_comes_again(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.settings = config.merge(trial.settings, {"worker": {"drain_timeout": 0.5}})
        trial.start("one")
        await trial.publish([*trial.jobs(1, "hang"), *trial.jobs(30)], keys=100)
        await trial.happened(Began, id="0")
        if mode in FREE:
            await trial.happened(Finished, times=30)
        assert await trial.stop("one") == 0
        trial.start("one")
        await trial.verdict(duplicates=0)


@across("partition")
async def test_a_stop_while_it_starts_is_obeyed(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        await trial.publish(trial.jobs(100, takes=0.005))
        for _ in range(4):
            worker = trial.start("one")
            started = time.monotonic()
            # somewhere between the first import and the first records
            await asyncio.sleep(trial.chance.uniform(0.2, 1.6))
            code = await trial.stop("one", timeout=10)
            # before it listens to signals the interpreter itself dies of them, having done nothing
            assert code in (0, -signal.SIGTERM), worker.written()
            assert time.monotonic() - started < 10
        trial.start("one")
        await trial.verdict(duplicates=0)


@across("key")
async def test_a_stop_in_the_middle_of_a_rebalance_is_obeyed(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        trial.start("one")
        await trial.publish(trial.jobs(300, takes=0.02))
        await trial.progressed(20)
        trial.start("two")
        await trial.happened(Note, "one", what="revoked")
        assert await trial.stop("one") == 0
        await trial.verdict(duplicates=0)


@across("partition")
@pytest.mark.parametrize("outage", ["killed", "frozen"])
async def test_a_stop_while_the_broker_is_away_is_obeyed_and_nothing_is_lost(
    outage: str, mode: str, broker: EmbeddedBroker
) -> None:
    async with Trial(broker.directory.parent, broker.address, ordering=mode) as trial:
        trial.start("one")
        await trial.publish(trial.jobs(200, takes=0.01))
        await trial.progressed(20)
        if outage == "killed":
            broker.process.kill()
        else:
            broker.process.freeze()
        trial.disturb(f"broker {outage}")
        await trial.stop("one", timeout=20)
        if outage == "killed":
            await broker.start()
        else:
            broker.process.thaw()
        trial.start("one")
        await trial.verdict()


@across("none")
async def test_a_second_signal_ends_it_at_once_and_commits_nothing_early(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        worker = trial.start("one")
        await trial.publish([*trial.jobs(1, "hang"), *trial.jobs(30)], partition=0, keys=100)
        await trial.happened(Began, id="0")
        if mode in FREE:
            await trial.happened(Finished, times=30)
        worker.terminate()
        await trial.until(lambda: "stopping" in worker.written(), what="the first signal is heard")
        await asyncio.sleep(SAME_STOP)  # until then it is the first one
        worker.terminate()
        assert await worker.ended(5) == 128 + signal.SIGTERM
        trial.start("one")
        await trial.verdict(duplicates=30)  # those that no commit had reached
        assert trial.count(Began, id="0") == 2


@across("partition")
async def test_a_second_signal_reaches_a_worker_whose_loop_is_blocked(mode: str, begin: Begin) -> None:
    async with begin(ordering=mode) as trial:
        worker = trial.start("one")
        await trial.publish(trial.jobs(1, "block", takes=30.0))
        await trial.happened(Began)

        def again() -> bool:
            worker.terminate()  # signals that arrive together are one
            return not worker.is_running

        await trial.until(again, 10, "it ends")
        assert worker.exit_code == 128 + signal.SIGTERM
        trial.start("one")
        await trial.verdict(duplicates=0)
