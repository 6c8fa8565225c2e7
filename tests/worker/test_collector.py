"""The garbage collector while a process is a worker, and afterwards."""

import gc
from collections.abc import Iterator

import pytest

from octopus.worker.collector import YOUNG, patient_collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.freeze()  # as the suite has it


def test_a_worker_lets_the_collector_look_rarely_and_leaves_it_as_it_was() -> None:
    gc.unfreeze()
    before = gc.get_threshold()
    with patient_collector():
        assert gc.get_threshold()[0] == YOUNG
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_the_program_itself_has_frozen_stays_frozen() -> None:
    gc.freeze()
    with patient_collector():
        pass
    assert gc.get_freeze_count() > 0
