"""What a group subscribes to."""

import re
from typing import Any

import pytest

from octopus import Router
from octopus.pipeline import subscription


async def handler(value: Any) -> None: ...


def subscribe(*topics: Any) -> Any:
    router = Router()
    for number, each in enumerate(topics):
        router.on(each, name=str(number))(handler)
    return subscription(router.routes)


def test_names_are_subscribed_by_name() -> None:
    assert subscribe("a", ["b", "a"]) == ("a", "b")


@pytest.mark.parametrize(
    ("topics", "taken", "left"),
    [
        ([re.compile("lab-.*")], ["lab-a"], ["lab", "xlab-a", "lab-a.dead-letter", "lab-a\n"]),
        ([re.compile(".*dead-letter")], ["a.dead-letter"], ["a", "a.dead-letter.dead-letter"]),
        (["plain.topic", re.compile("lab-.*")], ["plain.topic", "lab-1"], ["plainXtopic", "lab"]),
        ([re.compile("(?i)lab")], ["LAB"], ["labs"]),
        ([re.compile("lab", re.IGNORECASE), re.compile("x")], ["LAB", "x"], ["X"]),
        ([re.compile("lab  # the laboratory", re.VERBOSE), "b"], ["lab", "b"], ["lab  "]),
        ([re.compile("a|b"), re.compile("c|d")], ["a", "b", "c", "d"], ["ab"]),
    ],
    ids=["one", "dead letters", "with names", "global flag", "flag", "verbose", "alternatives"],
)
def test_patterns_and_names_become_one_pattern_without_dead_letters(topics: Any, taken: Any, left: Any) -> None:
    pattern = subscribe(*topics)
    assert [topic for topic in taken if not pattern.match(topic)] == []
    assert [topic for topic in left if pattern.match(topic)] == []
