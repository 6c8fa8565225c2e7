"""The tables of README and docs/performance.md are what the script makes of the lines that are kept beside it."""

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.page import found
from benchmarks.speed import main
from benchmarks.tables import tables_of

ROOT = Path(__file__).parents[2]
LINES = sorted((ROOT / "benchmarks" / "results").glob("speed-*.jsonl"))
PAGES = [ROOT / "README.md", ROOT / "docs" / "performance.md"]

MEND = "out of date: scripts/bench speed benchmarks/results/speed-*.jsonl --write README.md docs/performance.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_what_the_lines_say(page: Path) -> None:
    tables = tables_of([line for file in LINES for line in report.read(file)])
    shown = found(page.read_text(encoding="utf-8"))
    assert shown
    for name, text in shown.items():
        assert text == tables[name], MEND


def test_the_tables_are_written_into_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: speed -->\n<!-- end -->\n")
    assert main([*map(str, LINES), "--write", str(page)]) == 0
    assert main([*map(str, LINES)]) == 0
    assert found(page.read_text())["speed"] in capsys.readouterr().out
