"""Stop signals: when two of them are one stop."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from octopus.worker.signals import SAME_STOP, StopSignals, is_same_stop


@pytest.mark.parametrize(
    ("after", "same"),
    [(0.0, True), (0.02, True), (SAME_STOP - 0.01, True), (SAME_STOP, False), (60.0, False)],
    ids=["GNU timeout", "a parent passes it on", "just within", "just beyond", "a second Ctrl-C"],
)
def test_a_signal_soon_after_the_first_is_the_same_stop(after: float, same: bool) -> None:
    assert is_same_stop(1000.0, 1000.0 + after) is same


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_of_many_signals_the_first_and_those_that_are_meant_are_heard(clock: list[float]) -> None:
    heard: list[tuple[str, int]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with StopSignals(lambda n: heard.append(("first", n)), lambda n: heard.append(("second", n))):
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
            clock[0] += SAME_STOP
            os.kill(os.getpid(), signal.SIGINT)
        assert heard == [("first", signal.SIGTERM), ("second", signal.SIGINT)]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_repetition_that_comes_when_all_is_over_harms_nobody_and_then_signals_mean_what_they_did(
    clock: list[float],
) -> None:
    meant: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: meant.append(number))
    try:
        with StopSignals(lambda _: None, lambda _: None):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert meant == []
        clock[0] += SAME_STOP
        os.kill(os.getpid(), signal.SIGTERM)
        assert meant == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_without_a_stop_everything_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(lambda _: None, lambda _: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12: other tests may have left threads
@pytest.mark.parametrize(
    ("sent", "ends_with"),
    [
        ([signal.SIGTERM], -signal.SIGTERM),
        ([signal.SIGINT, signal.SIGINT], 0),
        ([signal.SIGINT, signal.SIGTERM], -signal.SIGTERM),
    ],
    ids=["it is terminated", "a terminal interrupts all", "it is interrupted and then terminated"],
)
def test_a_fork_can_be_terminated_and_a_stop_is_its_parents(sent: list[signal.Signals], ends_with: int) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with StopSignals(heard.append, heard.append):
            fork = multiprocessing.get_context("fork")
            ours, its = fork.Pipe()
            child = fork.Process(target=_take, args=(its, len(sent), heard))
            child.start()
            for number in sent:
                assert ours.recv() == "listens"
                assert child.pid is not None
                os.kill(child.pid, number)
            child.join()
            assert child.exitcode == ends_with
            assert heard == []
    finally:
        signal.signal(signal.SIGTERM, before)


def _take(parent: Connection, count: int, heard: list[int]) -> None:
    """Wait for so many signals, and fail if one of them is taken for the parent's."""
    arrived, arrives = os.pipe()
    os.set_blocking(arrives, False)
    signal.set_wakeup_fd(arrives)
    for _ in range(count):
        parent.send("listens")
        os.read(arrived, 1)
    assert heard == []
