"""Tables, targets and plots, from the lines alone."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import FIGURES
from benchmarks.targets import TARGETS

Line = dict[str, Any]
Publish = Callable[[Line], None]
Groups = dict[tuple[str, str, str, float], list[Line]]


def read(path: Path) -> list[Line]:
    """Return the lines of a file; of a case measured twice under the same conditions, the later one."""
    latest: dict[tuple[Any, ...], Line] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        latest[*_place(line), line["case"]] = line
    return list(latest.values())


def show(lines: Iterable[Line], console: Console | None = None) -> None:
    """Print a table for each group, then how far the targets are reached."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    lines = list(lines)
    for (suite, group, broker, round_trip), members in _grouped(lines).items():
        link = f", round trip {round_trip:g} ms" if round_trip else ""
        console.print(_table(f"{suite}: {group} — {broker or 'no broker'}{link}", members))
    if (targets := _targets(lines)).row_count:
        console.print(targets)


def plot(lines: Iterable[Line], path: Path) -> None:
    """Draw every group as bars.

    Raises:
        SystemExit: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("The plot needs matplotlib: pip install --group bench") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {place: [one for one in members if one["figures"]] for place, members in _grouped(lines).items()}
    groups = {place: members for place, members in groups.items() if members}
    heights = [0.26 * len(members) + 1.0 for members in groups.values()]
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(9, sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, ((suite, group, broker, round_trip), members) in zip(axes[:, 0], groups.items(), strict=True):
        name = members[0]["figure"]
        members = [one for one in members if name in one["figures"]][::-1]
        values = [one["figures"][name] for one in members]
        colours = ["tab:orange" if one["case"].startswith("octopus") else "tab:gray" for one in members]
        bars = axis.barh([one["case"] for one in members], values, color=colours)
        axis.bar_label(bars, labels=[_number(value, FIGURES[name].digits) for value in values], padding=3, fontsize=8)
        axis.margins(x=0.15)
        axis.set_title(f"{suite}: {group} — {broker}" + (f", {round_trip:g} ms" if round_trip else ""), fontsize=9)
        axis.set_xlabel(FIGURES[name].heading, fontsize=8)
        axis.xaxis.set_major_formatter("{x:,.6g}")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _place(line: Line) -> tuple[str, str, str, float]:
    return line["suite"], line["group"], line["broker"], line["round_trip_ms"]


def _grouped(lines: Iterable[Line]) -> Groups:
    groups: Groups = defaultdict(list)
    for line in lines:
        groups[_place(line)].append(line)
    return groups


def _table(title: str, lines: list[Line]) -> Table:
    used = [name for name in FIGURES if any(name in line["figures"] for line in lines)]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("case", overflow="fold")
    if promised := any(line["guarantee"] for line in lines):
        table.add_column("delivery")
    for name in used:
        table.add_column(FIGURES[name].heading, justify="right")
    table.add_column("±", justify="right")
    table.add_column("ratio", justify="right")
    if by_cpu := any(line["cpu_ratios"] for line in lines):
        table.add_column("by CPU", justify="right")
    for line in lines:
        figures = line["figures"]
        cells = [_number(figures[name], FIGURES[name].digits) if name in figures else "" for name in used]
        name = line["case"] + (f" ({line['error']})" if "error" in line else "")
        table.add_row(
            name,
            *([line["guarantee"]] if promised else []),
            *cells,
            _spread(line["runs"]),
            _first(line["ratios"]),
            *([_first(line["cpu_ratios"])] if by_cpu else []),
        )
    return table


def _first(ratios: dict[str, float]) -> str:
    return f"{next(iter(ratios.values())):.3g}" if ratios else ""


def _spread(runs: list[float]) -> str:
    """Return half the distance between the largest and the smallest run, as a part of the middle."""
    if len(runs) < 2 or not min(runs):
        return ""
    return f"{100 * (max(runs) - min(runs)) / (max(runs) + min(runs)):.0f} %"


def _targets(lines: list[Line]) -> Table:
    table = Table(title="Targets", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("target", "at", "asked", "measured", "", "by CPU"):
        table.add_column(heading, justify="right" if heading in ("asked", "measured", "by CPU") else "left")
    by_broker: dict[str, dict[tuple[str, str, str, float], Line]] = defaultdict(dict)
    for line in lines:
        by_broker[line["broker"]][line["suite"], line["group"], line["case"], line["round_trip_ms"]] = line
    for broker, known in by_broker.items():
        for target in TARGETS:
            measured = target.measured(known)
            if measured is not None and (broker.startswith("octopus embedded") or not target.embedded):
                met = measured >= target.bound if target.at_least else measured <= target.bound
                sign = "≥" if target.at_least else "≤"
                asked, got = f"{sign} {target.bound:g}", f"{measured:.3g}"
                by_cpu = target.by_cpu(known)
                verdict = "yes" if met else "[bold]not yet[/bold]"
                table.add_row(target.sentence, broker, asked, got, verdict, f"{by_cpu:.3g}" if by_cpu else "")
    return table


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"
