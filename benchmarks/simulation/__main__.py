"""Print the tables of docs/scaling.md, or write them into it, from lines that `scripts/bench --json` wrote.

python -m benchmarks.simulation benchmarks/results/*.jsonl
"""

import argparse
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.page import put
from benchmarks.simulation.calibration import Uncalibrated
from benchmarks.simulation.tables import TABLES


def main(arguments: list[str]) -> int:
    """Print, or write."""
    grammar = argparse.ArgumentParser(prog="bench scaling", description=(__doc__ or "").splitlines()[0])
    grammar.add_argument("file", type=Path, nargs="+", help="lines of the suite `paper`, as --json wrote them")
    grammar.add_argument("--table", action="append", choices=TABLES, help="only this one (may be repeated)")
    grammar.add_argument("--write", type=Path, metavar="PAGE", help="replace the tables of this page")
    options = grammar.parse_args(arguments)
    lines = [line for file in options.file for line in report.read(file)]
    try:
        tables = {name: TABLES[name](lines) for name in options.table or TABLES}
    except Uncalibrated as error:
        print(error, file=sys.stderr)
        return 2
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(put(tables, page), encoding="utf-8")
    else:
        print("\n".join(f"{name}\n\n{text}" for name, text in tables.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
