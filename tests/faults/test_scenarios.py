"""The table of scenarios says what the suite runs."""

from collections.abc import Sequence

import pytest

from tests.faults import scenarios
from tests.faults.modes import MODES
from tests.faults.scenarios import Collected


@pytest.fixture(scope="module")
def collected() -> Sequence[Collected]:
    return scenarios.collect()


def test_there_are_66_and_each_test_that_they_name_exists(collected: Sequence[Collected]) -> None:
    numbers = [number for group in scenarios.SCENARIOS.values() for number in group]
    assert numbers == [*range(1, 67)]
    assert scenarios.missing(collected) == []


def test_the_readme_says_what_is_collected(collected: Sequence[Collected]) -> None:
    text = scenarios.README.read_text(encoding="utf-8")
    wanted = scenarios.within(text, scenarios.table(collected))
    assert text == wanted, "write it again with: python -m tests.faults.scenarios"


def test_every_trial_runs_in_each_mode_where_it_applies(collected: Sequence[Collected]) -> None:
    """A trial without a mode, or a scenario that lacks one and does not say why, is a hole in the proof."""
    trials = [each for each in collected if each.function.startswith("faults/")]
    # the second engine repeats some of them in one mode
    own = [each for each in trials if not each.function.startswith(scenarios.SECOND_ENGINE)]
    assert {each.function for each in own if not each.mode} == {
        "faults/test_shutdown::a_stop_under_load_finishes_what_runs_commits_it_and_repeats_nothing"  # in threads
    }
    for group in scenarios.SCENARIOS.values():
        for number, scenario in group.items():
            functions = {f"{file}::{name}" for file, names in scenario.tests.items() for name in names}
            for broker in ("embedded", "kafka"):
                modes = {each.mode for each in collected if each.function in functions and each.broker == broker}
                assert modes >= {*MODES} or scenario.note, f"{number} on {broker}: {modes}"


def test_the_quick_suite_has_something_of_every_scenario(collected: Sequence[Collected]) -> None:
    quick = {each.function for each in collected if not each.slow}
    for group in scenarios.SCENARIOS.values():
        for number, scenario in group.items():
            functions = {f"{file}::{name}" for file, names in scenario.tests.items() for name in names}
            assert functions & quick or number == 48, number  # 48 takes the whole machine, also from other tests
