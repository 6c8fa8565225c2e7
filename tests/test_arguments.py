"""Arguments that cannot be meant are refused where they are given, in one sentence with the value and what to give."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from octopus import Octopus, RetryLater, RetryPolicy, Router
from octopus.arguments import is_count, is_number, seconds
from octopus.errors import ConfigurationError

NAN = math.nan


async def handle(value: int) -> None: ...


async def tick() -> None: ...


def app(**given: Any) -> Octopus:
    return Octopus("lab", **given)


def on(**given: Any) -> Any:
    return Router().on("readings", **given)(handle)


def every(interval: Any) -> Any:
    return Router().every(interval)(tick)


PERIODS: list[Any] = [NAN, math.inf, -math.inf, 1e300, True, None, "soon", []]
COUNTS: list[Any] = [0, -1, 2.5, NAN, True, "many"]

REFUSED: list[tuple[Callable[[Any], object], list[Any], str]] = [
    (every, PERIODS, "seconds, such as 30, or a timedelta|seconds or a timedelta"),
    (lambda value: on(timeout=value), [each for each in PERIODS if each is not None], "timedelta"),
    (lambda value: on(within=value), PERIODS, "timedelta"),
    (lambda value: on(batch=value), COUNTS, "must be a whole number of events, 1 or more"),
    (lambda value: on(concurrency=value), [*COUNTS, None], "must be a whole number of events, 1 or more"),
    (lambda value: on(retry=value), [-1, 2.5, NAN, True, "x"], "give a whole number of runs"),
    (lambda value: on(group=value), [5, ["g"]], "names no group; give text"),
    (lambda value: on(start=value), [5, None, NAN], "neither 'earliest' nor 'latest'"),
    (lambda value: Router().on(value), [5, None, b"t"], "give a topic's name"),
    (lambda value: Router().include(value), [5, None, "router", Router], "give a Router"),
    (lambda value: Router().include(Router(), prefix=value), [5, None], "give text"),
    (lambda value: app(codec=value), [5, None, "json"], "give octopus.JSON"),
    (lambda value: app(codecs=[value]), [5, None, "json"], "give octopus.JSON"),
    (lambda value: app(codecs=value), [5, None, "json"], "give codecs=[MESSAGE_PACK]"),
    (lambda value: app(settings=value), [5, ["worker"], "worker"], "give a nested one"),
    (lambda value: app(brokers=value), [5, [5], {"kafka"}], "or several in a list"),
    (lambda value: app(lifespan=value), [5, "x"], "it is a function of the app"),
    (lambda value: app().synchronous_publisher(queue_bytes=value), [0, True, 2.5, "x"], "a whole number of bytes"),
    (lambda value: app().synchronous_publisher(close_timeout=value), [-1, True, NAN, "x"], "a number of seconds"),
]


@pytest.mark.parametrize(
    ("give", "value", "advice"),
    [
        pytest.param(give, value, advice, id=f"{number}-{value!r:.20}")
        for number, (give, values, advice) in enumerate(REFUSED)
        for value in values
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_value_and_what_to_give(
    give: Callable[[Any], object], value: Any, advice: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        give(value)
    sentence = str(refused.value)
    assert any(each in sentence for each in advice.split("|"))
    assert repr(value) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("attempts", -1, "a whole number of runs"),
        ("attempts", 2.5, "a whole number of runs"),
        ("backoff", -1, "seconds, 0 or more"),
        ("backoff", math.inf, "seconds, 0 or more"),
        ("factor", 0.5, "a number, 1 or more"),
        ("maximum", NAN, "seconds, 0 or more"),
        ("jitter", NAN, "a fraction, 0 to 1"),
        ("defer_beyond", -0.1, "seconds, 0 or more"),
    ],
)
def test_a_policy_names_the_number_that_is_out_of_range_and_no_other(name: str, value: float, advice: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value} of a RetryPolicy is out of range: give {advice}"):
        RetryPolicy(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [NAN, math.inf, True, "soon", None])
def test_a_wait_that_is_no_time_cannot_be_asked_for(after: Any) -> None:
    with pytest.raises(ValueError, match="give the seconds to wait"):
        RetryLater(after)


def test_numbers_have_ranges_and_truth_values_are_none() -> None:
    assert [is_number(each, 0, 1) for each in (0, 0.5, 1, -0.1, 1.1, NAN, True, "1")] == [True] * 3 + [False] * 5
    assert [is_count(each, 1) for each in (1, 10**20, 0, 1.0, True, None)] == [True] * 2 + [False] * 4


@pytest.mark.parametrize(("given", "is_so"), [(3, 3.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (-1, -1.0)])
def test_a_duration_is_seconds_or_a_timedelta(given: float | timedelta, is_so: float) -> None:
    assert seconds(given, "every({})") == is_so


def test_a_duration_in_words_is_answered_with_its_seconds() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^every\('2 min'\): durations are seconds or a timedelta: every\(120\)\.$"
    ):
        seconds("2 min", "every({})")
