"""The report of a soak, as Markdown, and the file that holds one of each kind."""

import re
from pathlib import Path

from tests.faults.soak.outcome import Outcome, Verdict


def describe(verdict: Verdict) -> str:
    """Return the report as Markdown."""
    outcome, report = verdict
    plan = outcome.plan
    lost = sum(anomaly.kind in ("lost-write", "unseen", "lost-output") for anomaly in report.anomalies)
    rows = {
        "broker": "genuine Apache Kafka, three nodes behind a bad network"
        if plan.broker == "kafka"
        else "embedded, behind a bad network",
        "ordering": plan.ordering,
        "delivery": plan.delivery.replace("_", " "),
        "seed": plan.seed,
        "minutes": f"{outcome.seconds / 60:.1f}",
        **_early_end(outcome),
        "records": f"{report.records:,}",
        "events in the history": f"{report.events:,}",
        "handled": f"{report.finished:,}",
        "dead letters": f"{report.dead_lettered:,}",
        "**lost**": f"**{lost:,}**" if outcome.is_complete else "unknown: what was not finished is not counted",
        "**other anomalies**": f"**{len(report.anomalies) - lost:,}**",
        "**crashed workers and groups**": f"**{len(outcome.crashes):,}**",
    }
    share = 100 * report.duplicates / max(1, report.finished)
    if outcome.outputs:
        rows |= {
            "transactions committed": f"{report.transactions:,}",
            "transactions aborted, or left by who was killed": f"{report.undecided:,}",
            "outputs that readers of committed records saw": f"{report.outputs:,}",
            "outputs that only readers of uncommitted records saw": f"{report.hidden:,}",
            "**repeated outputs**": f"**{report.duplicates:,}** (excused: none)",
        }
    else:
        rows["repeated effects"] = f"{report.duplicates:,} ({share:.1f} %; excused: {outcome.excused:,})"
        rows["outputs that were read"] = f"{report.outputs:,}"
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    lines += ["", "| what happened | times |", "|---|---|"]
    lines += [f"| {what} | {times:,} |" for what, times in sorted(report.notes.items())]
    if outcome.failure:
        lines += ["", "What ended it:", "", *(f"    {line}" for line in outcome.failure.splitlines())]
    for crash in outcome.crashes:
        lines += ["", "What a crash said:", "", *(f"    {line}" for line in crash.splitlines())]
    if report.anomalies:
        lines += ["", "Anomalies:", "", *(f"- {anomaly}" for anomaly in report.anomalies[:50])]
    return "\n".join(lines) + "\n"


def _early_end(outcome: Outcome) -> dict[str, str]:
    """Return the row that says that a run did not come to its end."""
    if outcome.is_complete:
        return {}
    how = "by a failure, see below" if outcome.failure else "interrupted"
    return {"**ended early**": f"**{how}** (planned: {outcome.plan.seconds / 60:g} minutes)"}


INTRODUCTION = """# Soaks

Reports that `scripts/soak --report docs/soak.md …` wrote at the end of long runs, the latest of each kind: workers and brokers killed, frozen
and restarted, the network cut, slowed and reset, handlers that fail and input that is poison, and every record accounted for. The same
seed repeats the choices; `scripts/soak --replay FILE` checks a history again.

Under at-least-once delivery a kill leaves repeated effects; the figure excused is the bound, the figure counted is the result. Under
exactly-once delivery an effect is an output that a reader of committed records sees: none may be missing, repeated, visible before its
transaction was committed, or visible without the offsets that go with it.
"""


def write_report(path: Path, verdict: Verdict) -> None:
    """Put the report into a file of several, in the place of the last one of its kind (broker, delivery, ordering)."""
    plan = verdict.outcome.plan
    broker = "Apache Kafka, three nodes" if plan.broker == "kafka" else "Embedded broker"
    title = f"## {broker}, {plan.delivery.replace('_', ' ')}, ordering {plan.ordering}"
    command = (
        f"scripts/soak --minutes {plan.seconds / 60:g} --seed {plan.seed} --broker {plan.broker} "
        f"--ordering {plan.ordering} --delivery {plan.delivery}"
    )
    section = f"{title}\n\n`{command}`\n\n{describe(verdict)}"
    text = path.read_text(encoding="utf-8") if path.exists() else INTRODUCTION
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [each.rstrip("\n") + "\n" for each in sections if not each.startswith(title + "\n")]
    path.write_text("\n".join([head.rstrip("\n") + "\n", *sorted([*kept, section], reverse=True)]), encoding="utf-8")
