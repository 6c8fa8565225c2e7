"""Failures become decisions."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octopus import Reject, RetryLater, RetryPolicy
from octopus.errors import DecodeError
from octopus.outcomes import DeadLetter, Retry

steady = RetryPolicy(attempts=3, backoff=1.0, factor=2.0, maximum=3.0, jitter=0.0)


@pytest.mark.parametrize(("attempt", "wait"), [(1, 1.0), (2, 2.0), (3, 3.0), (60, 3.0), (10_000, 3.0)])
def test_the_wait_grows_to_its_maximum(attempt: int, wait: float) -> None:
    assert steady.wait(attempt, chance=0.5) == wait


@given(st.integers(1, 100), st.floats(0, 1))
def test_jitter_only_shortens_the_wait(attempt: int, chance: float) -> None:
    policy = RetryPolicy(backoff=1.0, jitter=0.5)
    full = RetryPolicy(backoff=1.0, jitter=0.0).wait(attempt, 0)
    assert full / 2 <= policy.wait(attempt, chance) <= full


def test_a_failure_is_retried_until_the_attempts_are_used_up() -> None:
    error = ValueError("no")
    assert steady.decide(1, error, 0) == Retry(1.0, error)
    assert steady.decide(2, error, 0) == Retry(2.0, error)
    assert RetryPolicy(attempts=1).decide(1, error, 0) == DeadLetter("failed once, with ValueError: no", error)
    assert steady.decide(3, error, 0) == DeadLetter("failed 3 times, at last with ValueError: no", error)


def test_no_attempts_means_for_ever() -> None:
    assert isinstance(RetryPolicy(attempts=0).decide(10**6, ValueError(), 0.3), Retry)


def test_one_attempt_means_never() -> None:
    assert isinstance(RetryPolicy(attempts=1).decide(1, ValueError(), 0), DeadLetter)


def test_only_chosen_exceptions_are_retried() -> None:
    policy = RetryPolicy(on=(OSError,), never=(FileNotFoundError,))
    assert isinstance(policy.decide(1, ConnectionError(), 0), Retry)
    assert isinstance(policy.decide(1, ValueError("x"), 0), DeadLetter)
    gone = policy.decide(1, FileNotFoundError("x"), 0)
    assert isinstance(gone, DeadLetter)
    assert gone.reason == "FileNotFoundError is not retried: x"


def test_bytes_that_do_not_decode_are_never_retried() -> None:
    outcome = RetryPolicy(attempts=0).decide(1, DecodeError("$.size: expected int"), 0)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "cannot be decoded: $.size: expected int"


def test_retry_later_is_obeyed_and_not_counted() -> None:
    assert RetryPolicy(attempts=1).decide(7, RetryLater(30), 0) == Retry(30, counted=False)


def test_a_rejection_is_a_decision_not_a_failure() -> None:
    assert steady.decide(1, Reject("wrong beamline"), 0) == DeadLetter("wrong beamline", rejected=True)


@pytest.mark.parametrize(
    "wrong", [{"attempts": -1}, {"backoff": -1}, {"factor": 0.5}, {"maximum": -1}, {"jitter": 1.5}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"attempts": "x"}, {"jitter": None}, {"on": 5}, {"on": "x"}, {"never": [ValueError]}]
)
def test_what_is_no_number_and_no_tuple_of_exceptions_is_refused(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(TypeError, match=re.escape(f"{name}={value!r} of a RetryPolicy is no ")):
        RetryPolicy(**wrong)
