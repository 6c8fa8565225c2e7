"""The guide to faults: every test that it names exists."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and line.count("|") == 4]


@functools.cache
def functions_of(file: str) -> frozenset[str]:
    """Return the names of the functions of a file; the guide names most files many times."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_that_the_guide_names_exists() -> None:
    assert len(NAMED) > 300
    assert [name for name in NAMED if name.partition("::")[2] not in functions_of(name.partition("::")[0])] == []


def test_every_row_of_the_guide_names_a_test() -> None:
    rows = [row for row in ROWS if not row.endswith("| shown by |")]
    assert len(rows) > 60
    assert [row for row in rows if "`tests/" not in row.split("|")[3]] == []
