"""Trials whose effects are outputs, exactly once: scenarios 11, 14, 33, 39, 49, 61 and 63."""

from collections.abc import Callable

import pytest

from octopus.testing.faults import EmbeddedBroker
from octopus.testing.history import Finished
from tests.faults.test_crashes import MODES, mixture
from tests.faults.trial import Trial

pytestmark = pytest.mark.process

Begin = Callable[..., Trial]


@pytest.mark.parametrize("mode", MODES)
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
        assert report.buried >= 75
        assert report.outputs >= 2 * report.finished + report.buried
