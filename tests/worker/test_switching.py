"""How soon threads take turns while a process is a worker, and afterwards."""

import sys
from collections.abc import Iterator

import pytest

from octopus.worker.switching import INTERVAL, prompt_switches

MICROSECONDS = 2e-6
"""Python keeps the interval in whole ones."""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [(0.005, INTERVAL), (INTERVAL / 10, INTERVAL / 10)],
    ids=["Python's default", "the program asks for sooner"],
)
def test_threads_of_a_worker_take_turns_sooner_and_afterwards_as_before(before: float, meanwhile: float) -> None:
    sys.setswitchinterval(before)
    with prompt_switches():
        assert sys.getswitchinterval() == pytest.approx(meanwhile, abs=MICROSECONDS)
    assert sys.getswitchinterval() == pytest.approx(before, abs=MICROSECONDS)
