"""The tables of README and docs/performance.md, made of lines alone."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import report
from benchmarks.figures import FIGURES
from benchmarks.markdown import number, table
from benchmarks.suites import consume, latency, micro, publish, scale, transform
from benchmarks.targets import TARGETS, Key, Target

Lines = Mapping[str, Mapping[Key, report.Line]]
"""By broker, then by suite, group, case and round trip."""

SIZES = ("100 B", "463 B", "2.5 KB", "64 KB")

GROWTH = ("partitions", "handlers in a group", "keys", "backlog")

PLACES = [
    (case.suite, case.group, case.name)
    for suite in (consume, publish, transform, latency, scale, micro)
    for case in suite.cases()
]
"""In the order in which they are shown."""

EMBEDDED, KAFKA = "embedded broker", "Apache Kafka"

SHOWN = ("octopus typed", "octopus pydantic", "octopus batch of 500", "octopus 64 key lanes")
"""Of our own cases, those that stand beside the peers."""


def tables_of(lines: Sequence[report.Line]) -> dict[str, str]:
    """Return every table by its name; the lines may lack what a table is about, which is then empty."""
    brokers: dict[str, dict[Key, report.Line]] = defaultdict(dict)
    for line in lines:
        place = line["suite"], line["group"], line["case"], line["round_trip_ms"]
        brokers[_kind(line["broker"])][place] = line
    return {
        "speed": _speed(brokers),
        "targets": _targets(brokers),
        "peers": _beside(brokers, "consume", "463 B", consume.BASELINE, "consumer"),
        "transforming": _beside(brokers, "transform", transform.GROUP, transform.BASELINE, "client"),
        "durability": _figures(brokers, "embedded", ["transform"], ("records_per_second", "cpu_us")),
        "sizes": _side_by_side(brokers[KAFKA], "consume", SIZES, "records_per_second"),
        "publishing": _side_by_side(brokers[KAFKA], "publish", publish.WORKLOADS, "records_per_second"),
        "latency": _figures(brokers, "latency", [*latency.LOADS], ("p50_ms", "p99_ms", "p999_ms")),
        "growth": _figures(brokers, "scale", GROWTH, ("cpu_us", "memory_mb")),
        "stuck": _figures(brokers, "scale", ["one handler never returns"], ("records", "grown_mb")),
        "start": _figures(brokers, "scale", ["from process start to the first record"], ("seconds_to_first",)),
        "rebalance": _figures(
            brokers, "scale", ["a second worker joins and leaves"], ("pause_ms", "stayed_pause_ms", "duplicates")
        ),
        "killed": _figures(brokers, "scale", [scale.KILLED], ("pause_ms", "stayed_pause_ms", "duplicates")),
        "road": _figures(brokers, "road", SIZES, ("nanoseconds",)),
        "awaiting": _figures(brokers, "ordering", [micro.AWAITING], ("nanoseconds",)),
        "middleware": _figures(brokers, "ordering", [micro.MIDDLEWARE], ("nanoseconds",)),
        "patterns": _figures(brokers, "patterns", ["three fields, match", "operators"], ("nanoseconds",)),
    }


def _kind(broker: str) -> str:
    return KAFKA if "kafka" in broker.lower() else EMBEDDED if broker else ""


def _brokers(lines: Lines) -> list[str]:
    return [name for name in (EMBEDDED, KAFKA) if name in lines]


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
    if target.embedded and broker != EMBEDDED:
        return ""
    measured = target.measured({**lines.get("", {}), **lines[broker]})
    if measured is None:
        return ""
    met = measured >= target.bound if target.at_least else measured <= target.bound
    return f"{number(measured)}{'' if met else ' (not reached)'}"


def _beside(lines: Lines, suite: str, group: str, baseline: str, heading: str) -> str:
    """A group on one core: everybody, with the ratio to the baseline."""
    names = _brokers(lines)
    cases: dict[str, Any] = {}
    for name in names:
        for place, line in lines[name].items():
            if place == (suite, group, place[2], 0.0) and (suite != "consume" or _is_shown(place[2])):
                cases.setdefault(place[2], line)
    rows = []
    for case, line in cases.items():
        cells = []
        for name in names:
            figures = lines[name].get((suite, group, case, 0.0), {}).get("figures", {})
            base = lines[name].get((suite, group, baseline, 0.0), {}).get("figures", {})
            rate = figures.get("records_per_second")
            cells += [number(rate) if rate else "–", _share(rate, base.get("records_per_second"))]
        rows.append([case, line["guarantee"], *cells])
    headings = [heading for name in names for heading in (f"{name}, records/s", "ratio")]
    return table([heading, "delivery", *headings], rows)


def _share(rate: float | None, base: float | None) -> str:
    return number(rate / base) if rate and base else "–"


def _side_by_side(lines: Mapping[Key, report.Line], suite: str, groups: Iterable[str], figure: str) -> str:
    """One column for each group."""
    rows = []
    for case in dict.fromkeys(name for place, _, name in PLACES if place == suite and _is_shown(name)):
        found = [lines.get((suite, group, case, 0.0), {}) for group in groups]
        values = [line.get("figures", {}).get(figure) for line in found]
        if any(found):
            promised = next(line["guarantee"] for line in found if line)
            rows.append([case, promised, *(_or_dash(value) for value in values)])
    return table(["case", "delivery", *groups], rows)


def _figures(lines: Lines, suite: str, groups: Sequence[str], figures: Sequence[str]) -> str:
    """One row for each case of these groups, one column for each figure on each broker."""
    names = [name for name in (*_brokers(lines), "") if any(place[0] == suite for place in lines.get(name, {}))]
    rows = []
    for _, group, case in [place for wanted in groups for place in PLACES if place[:2] == (suite, wanted)]:
        found = [lines[name].get((suite, group, case, 0.0), {}).get("figures", {}) for name in names]
        if any(found):
            rows.append([group, case, *(_or_dash(one.get(figure)) for one in found for figure in figures)])
    plain = [FIGURES[figure].heading if figure in FIGURES else figure for figure in figures]
    headings = ["", "case", *(f"{name}, {heading}".removeprefix(", ") for name in names for heading in plain)]
    if len(groups) == 1:  # which the text names
        headings, rows = headings[1:], [row[1:] for row in rows]
    return table(headings, rows)


def _is_shown(case: str) -> bool:
    """Tell whether a consumer or publisher stands beside the peers."""
    return not case.startswith("octopus") or case in SHOWN or "publish" in case


def _or_dash(value: float | None) -> str:
    return "–" if value is None else number(value)
