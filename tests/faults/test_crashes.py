"""Workers that are killed, frozen and stopped. Scenarios 11 to 15, 39, 56 to 58."""

from pathlib import Path

import pytest

from octopus.testing.faults import EmbeddedBroker
from tests.faults.trial import Trial

MODES = ["partition", "key", "none", "batch"]


@pytest.mark.process
@pytest.mark.parametrize("mode", MODES)
async def test_workers_killed_at_random_lose_nothing(mode: str, tmp_path: Path, broker: EmbeddedBroker) -> None:
    async with Trial(tmp_path, broker.address, ordering=mode, seed=MODES.index(mode)) as trial:
        for name in ("one", "two"):
            trial.start(name)
        jobs = [
            *trial.jobs(300, takes=0.002),
            *trial.jobs(10, "fail"),
            *trial.jobs(20, "fail once"),
            *trial.jobs(10, "later"),
            *trial.jobs(10, "reject"),
            *trial.jobs(20, wanted=False),
            *trial.poison(5),
        ]
        trial.chance.shuffle(jobs)
        await trial.publish(jobs)
        for name in ("one", "two", "one"):
            await trial.progressed(trial.chance.randrange(30, 60))
            trial.kill(name)
            trial.start(name)
        report = await trial.verdict()
        assert report.buried >= 25  # a batch of unlucky ones may use up the attempts of some that fail once
