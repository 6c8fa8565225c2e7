"""Regular expressions of clients mean what they mean in Python, and take no more than linear time."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.broker.expressions import LARGEST_PATTERN, LARGEST_REPEAT, Expression

PIECES = [
    "a",
    "b",
    ".",
    "*",
    "+",
    "?",
    "|",
    "(",
    ")",
    "(?:",
    "(?P<n>",
    "[ab]",
    "[^a]",
    "[]a-c]",
    r"[\w-]",
    r"\d",
    r"\.",
    "^",
]
PIECES += ["{2}", "{1,2}", "{0,}", "{,", "1", r"\n", r"\A", "*?", r"[a\]]"]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text("abc1.\n]", max_size=6))
def test_an_expression_matches_the_texts_that_it_matches_elsewhere(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ours, theirs = Expression(pattern), re.compile(pattern, re.ASCII)
        except (ValueError, re.error):  # Python repeats no `^`
            return
    assert ours.matches(text) == bool(theirs.fullmatch(text))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a*)*b", "a" * 1000),
        ("(a|aa)+b", "a" * 1000),
        (".*.*.*.*.*.*.*.*x", "ab" * 500),
        ("(.?){300}b", "a" * 1000),
    ],
    ids=lambda value: value[:12],
)
def test_an_expression_that_would_go_back_for_ever_is_soon_answered(pattern: str, text: str) -> None:
    assert not Expression(pattern).matches(text)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?i)a",
        "(?=a)",
        r"(a)\1",
        r"\b",
        "[[:alpha:]]",
        "[z-a]",
        "a**",
        "{2}",
        "\\",
        "[",
        "a" * (LARGEST_PATTERN + 1),
        f"a{{{LARGEST_REPEAT + 1}}}",
        "(a{900}){900}",
        "(" * 200 + ")" * 200,
    ],
    ids=lambda pattern: pattern[:12],
)
def test_what_is_no_expression_here_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression here"):
        Expression(pattern)
