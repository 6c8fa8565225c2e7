"""The cases of `scripts/bench` that documents and comments name exist."""

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.__main__ import SUITES
from benchmarks.cases import select

ROOT = Path(__file__).parents[2]
CASES = [case for suite in SUITES for case in suite.cases()]
COMMAND = re.compile(r"`scripts/bench ([^`]*:[^`]*)`")


def names_in(path: Path) -> list[str]:
    """Return the names of cases in a file's commands; options have none."""
    return [
        word
        for command in COMMAND.findall(path.read_text(encoding="utf-8"))
        for word in shlex.split(command)
        if ":" in word and not word.isupper()
    ]


NAMED = sorted(
    {
        name
        for path in [*(ROOT / "octopus").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
        for name in names_in(path)
    }
)


@pytest.mark.parametrize("name", NAMED)
def test_a_case_that_is_named_exists(name: str) -> None:
    assert select(CASES, [name])


def test_the_page_on_performance_names_a_case_for_each_reason() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    reasons = re.split(r"^- ", page.split("## Why it is fast")[1].split("\n## ")[0], flags=re.MULTILINE)[1:]
    assert reasons
    assert [reason for reason in reasons if "scripts/bench" not in reason] == []
