"""Stop signals: when two of them are one stop."""

import os
import signal
import time

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
