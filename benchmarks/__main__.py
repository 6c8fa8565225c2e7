"""Measure Octopus beside its peers. `report FILE` shows lines that were measured before, `speed FILE` and `scaling FILE`
make the tables of the documentation."""

import argparse
import logging
import sys
from pathlib import Path

from benchmarks import machine, report, speed
from benchmarks.brokers import broker
from benchmarks.cases import Case, select
from benchmarks.harness import Interrupted, Line, Plan, measure, write
from benchmarks.simulation import __main__ as simulation
from benchmarks.suites import broker as broker_suite
from benchmarks.suites import consume, latency, micro, paper, publish, scale, transform

SUITES = (consume, publish, transform, latency, broker_suite, scale, micro, paper)
WITHOUT_BROKER = {"patterns", "ledger", "ordering", "serde", "import", "embedded"}


def main(arguments: list[str]) -> int:
    """Measure, or report."""
    if arguments[:1] == ["report"]:
        return show_report(arguments[1:])
    if arguments[:1] == ["speed"]:
        return speed.main(arguments[1:])
    if arguments[:1] == ["scaling"]:
        return simulation.main(arguments[1:])
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.CRITICAL)  # a topic that is being deleted worries clients
    cases = select([case for suite in SUITES for case in suite.cases()], options.names)
    if not cases:
        print(f"No case is called {' or '.join(options.names)}; --list shows all.", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(case.identity for case in cases))
        return 0
    lines: list[Line] = []

    def keep(line: Line) -> None:
        lines.append(line)
        write(line, options.json)

    try:
        run(cases, options, keep)
    except Interrupted:
        return 130
    finally:
        if lines and str(options.json) != "-":
            report.show(lines)
    return 1 if any("error" in line for line in lines) else 0


def run(cases: list[Case], options: argparse.Namespace, publish: report.Publish) -> None:
    """Measure what needs a broker with one, and the rest without."""
    broker_cores, client_cores = machine.cores()
    plan = Plan(
        rounds=options.rounds,
        records=options.records,
        client_cores=client_cores,
        broker_cores=broker_cores,
        round_trip=options.rtt,
        deadline=options.deadline,
    )
    alone = [case for case in cases if case.suite in WITHOUT_BROKER]
    if alone:
        measure(alone, plan, None, publish)
    served = [case for case in cases if case.suite not in WITHOUT_BROKER]
    kind, link = options.broker, options.rtt
    if kind == "embedded":
        served = [case for case in served if not _is_for_kafka_alone(case)]
    if served:
        with broker(kind, broker_cores, round_trip=link, durability=options.durability, nodes=options.nodes) as running:
            measure(served, plan, running, publish)


def _is_for_kafka_alone(case: Case) -> bool:
    """Tell, with a line to people, whether a case needs what the embedded broker does not have."""
    needs = case.options.get("consumer", {}).get("group_protocol") == "consumer"
    if needs:
        print(f"left out: {case.identity} needs KIP-848 groups, thus --broker kafka", file=sys.stderr)
    return needs


def show_report(arguments: list[str]) -> int:
    """Show tables of a file of lines, and draw a plot."""
    grammar = argparse.ArgumentParser(prog="bench report", description="Show lines that were measured before.")
    grammar.add_argument("file", type=Path, nargs="+", help="lines, as --json wrote them")
    grammar.add_argument("--plot", type=Path, help="also draw them into this file (.png, .svg, .pdf)")
    options = grammar.parse_args(arguments)
    lines = [line for file in options.file for line in report.read(file)]
    report.show(lines)
    if options.plot:
        report.plot(lines, options.plot)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    grammar = argparse.ArgumentParser(
        prog="bench",
        description=__doc__,
        epilog="A NAME is a suite, suite:group, suite:group:case, or a glob over that. See benchmarks/README.md.",
    )
    grammar.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: everything)")
    grammar.add_argument(
        "--broker",
        default="embedded",
        metavar="embedded|kafka|HOST:PORT",
        help="which broker (default: %(default)s); kafka starts a genuine Apache Kafka; "
        "an address may carry settings: kafka://HOST:PORT?security_protocol=SASL_SSL&username=…",
    )
    grammar.add_argument("--rtt", type=duration, default=0.0, metavar="60ms", help="round-trip time of the link to it")
    grammar.add_argument("--durability", choices=("os", "fsync"), default="os", help="of the embedded broker")
    grammar.add_argument(
        "--nodes", type=int, choices=(1, 3), default=1, help="of the Apache Kafka (default: %(default)s)"
    )
    grammar.add_argument("--rounds", type=int, default=5, help="runs of each case (default: %(default)s)")
    grammar.add_argument("--records", type=int, default=200_000, help="in a topic (default: %(default)s)")
    grammar.add_argument("--deadline", type=float, default=180.0, help="seconds for one run (default: %(default)g)")
    grammar.add_argument("--json", type=Path, metavar="FILE", help="append a line per case to this file; - prints them")
    grammar.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return grammar


def duration(text: str) -> float:
    """Read `60ms`, `0.06s` or seconds."""
    for suffix, factor in (("ms", 1e-3), ("s", 1.0), ("", 1.0)):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    raise AssertionError(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
