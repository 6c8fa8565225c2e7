"""The guide to faults: every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and line.count("|") == 4]


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_guide_names_exists(name: str) -> None:
    file, _, function = name.partition("::")
    names = {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert function in names


def test_every_row_of_the_guide_names_a_test() -> None:
    rows = [row for row in ROWS if not row.endswith("| shown by |")]
    assert len(rows) > 60
    assert [row for row in rows if "`tests/" not in row.split("|")[3]] == []
