"""Print the tables of README and docs/performance.md, or write them there, from lines that `scripts/bench --json` wrote.

scripts/bench speed benchmarks/results/speed-*.jsonl --write README.md docs/performance.md
"""

import argparse
from pathlib import Path

from benchmarks import report
from benchmarks.page import put
from benchmarks.tables import tables_of


def main(arguments: list[str]) -> int:
    """Print, or write."""
    grammar = argparse.ArgumentParser(prog="bench speed", description=(__doc__ or "").splitlines()[0])
    grammar.add_argument("file", type=Path, nargs="+", help="lines, as --json wrote them")
    grammar.add_argument("--write", type=Path, nargs="+", metavar="PAGE", help="replace the tables of these pages")
    options = grammar.parse_args(arguments)
    tables = tables_of([line for file in options.file for line in report.read(file)])
    for page in options.write or ():
        page.write_text(put(tables, page.read_text(encoding="utf-8")), encoding="utf-8")
    if not options.write:
        print("\n".join(f"{name}\n\n{text}" for name, text in tables.items()))
    return 0
