"""Print the tables of README and docs/performance.md, or write them there, from lines that `scripts/bench --json` wrote.

scripts/bench speed benchmarks/results/speed-*.jsonl --write README.md docs/performance.md
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.markdown import number, table
from benchmarks.page import put
from benchmarks.suites.consume import BASELINE
from benchmarks.targets import TARGETS, Key, Target

Lines = Mapping[str, Mapping[Key, report.Line]]
"""By broker, then by suite, group, case and round trip."""

SHOWN = ("octopus typed", "octopus pydantic", "octopus batch of 500", "octopus 64 key lanes")
"""Of our own cases, those that stand beside the peers."""


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


def tables_of(lines: Sequence[report.Line]) -> dict[str, str]:
    """Return every table by its name."""
    brokers: dict[str, dict[Key, report.Line]] = defaultdict(dict)
    for line in lines:
        place = line["suite"], line["group"], line["case"], line["round_trip_ms"]
        brokers[_kind(line["broker"])][place] = line
    return {"speed": _speed(brokers), "targets": _targets(brokers), "peers": _peers(brokers)}


def _kind(broker: str) -> str:
    return "Apache Kafka" if "kafka" in broker.lower() else "embedded broker" if broker else ""


def _brokers(lines: Lines) -> list[str]:
    return [name for name in ("embedded broker", "Apache Kafka") if name in lines]


def _speed(lines: Lines) -> str:
    """For people who choose: how many times as fast as the others, where a ratio says that."""
    names = _brokers(lines)
    rows = []
    for target in TARGETS:
        if target.theirs is not None and target.figure == "records_per_second" and not target.round_trip_ms:
            measured = [target.measured(lines[name]) for name in names]
            if target.theirs[2].startswith("octopus") or not any(measured):
                continue
            rows.append([_plain(target), target.theirs[2], *(_times(value) for value in measured)])
    return table(["Octopus", "compared with", *names], rows)


def _plain(target: Target) -> str:
    return f"{target.ours[2].removeprefix('octopus ')}, {target.ours[1]}"


def _times(value: float | None) -> str:
    return f"{number(value)} ×" if value else "–"


def _targets(lines: Lines) -> str:
    """Everything that was asked for, and how far it is reached."""
    names = _brokers(lines)
    rows = []
    for target in TARGETS:
        cells = [_verdict(target, lines, name) for name in names]
        if any(cells):
            rows.append([target.sentence, f"{'≥' if target.at_least else '≤'} {target.bound:,g}", *cells])
    return table(["ratio or figure", "wanted", *names], rows)


def _verdict(target: Target, lines: Lines, broker: str) -> str:
    if target.embedded and broker != "embedded broker":
        return ""
    measured = target.measured({**lines.get("", {}), **lines[broker]})
    if measured is None:
        return ""
    met = measured >= target.bound if target.at_least else measured <= target.bound
    return f"{number(measured)}{'' if met else ' (not reached)'}"


def _peers(lines: Lines) -> str:
    """Consuming records of 463 bytes, one core: everybody."""
    names = _brokers(lines)
    cases: dict[str, Any] = {}
    for name in names:
        for (suite, group, case, round_trip), line in lines[name].items():
            ours = case.startswith("octopus")
            if (suite, group, round_trip) == ("consume", "463 B", 0.0) and (not ours or case in SHOWN):
                cases.setdefault(case, line)
    rows = []
    for case, line in cases.items():
        cells = []
        for name in names:
            figures = lines[name].get(("consume", "463 B", case, 0.0), {}).get("figures", {})
            base = lines[name].get(("consume", "463 B", BASELINE, 0.0), {}).get("figures", {})
            rate = figures.get("records_per_second")
            cells += [number(rate) if rate else "–", _share(rate, base.get("records_per_second"))]
        rows.append([case, line["guarantee"], *cells])
    headings = [heading for name in names for heading in (f"{name}, records/s", "ratio")]
    return table(["consumer", "delivery", *headings], rows)


def _share(rate: float | None, base: float | None) -> str:
    return number(rate / base) if rate and base else "–"
