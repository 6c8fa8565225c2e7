"""Runs cases: each in a fresh process pinned to one core, interleaved A B A B …, and takes medians.

A group of cases shares its topic and its rounds: what disturbs the machine for a while disturbs all of them.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.brokers import RunningBroker
from benchmarks.cases import Case
from benchmarks.environments import EnvironmentFailed, python_of, versions_of
from benchmarks.records import HEADERS, SEED, Workload
from benchmarks.task import Task, read_answer
from benchmarks.topics import Topics
from octopus.errors import OctopusError

ROOT = Path(__file__).parents[1]

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        rounds: Runs of each case.
        records: Of a topic; fewer when they are large.
        largest_topic_bytes: The limit for that.
        deadline: Seconds that one run may take.
        client_cores: Where the cases run.
        broker_cores: Where the broker runs.
        round_trip: Seconds of the link between them.
    """

    rounds: int
    records: int
    largest_topic_bytes: int = 512 * 2**20
    deadline: float = 180.0
    client_cores: str = ""
    broker_cores: str = ""
    round_trip: float = 0.0

    def scaled(self, workload: Workload) -> Workload:
        """Return a workload with as many records as this plan allows."""
        most = min(self.records, self.largest_topic_bytes // workload.value_bytes)
        return dataclasses.replace(workload, records=max(workload.records * most // NOMINAL_RECORDS, 1))


NOMINAL_RECORDS = 100_000
"""What workloads say when they mean "as many as the plan"."""


def measure(cases: Iterable[Case], plan: Plan, running: RunningBroker | None, publish: Callable[[Line], None]) -> None:
    """Measure cases group by group; hand each case's line to `publish` as soon as its group is done."""
    topics = Topics(running.address, SEED) if running is not None else None
    shared = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "revision": machine.revision(ROOT),
        "broker": running.description if running is not None else "",
        "round_trip_ms": round(plan.round_trip * 1000, 3),
        "machine": machine.describe(),
        "client_cores": plan.client_cores,
        "broker_cores": plan.broker_cores,
        "seed": SEED,
    }
    try:
        for _, group in itertools.groupby(cases, key=lambda case: (case.suite, case.group)):
            for line in _measure_group(list(group), plan, running, topics):
                publish(shared | line)
    except Interrupted as interrupted:
        for line in interrupted.lines:
            if line["rounds"]:
                publish(shared | line)
        raise
    finally:
        if topics is not None:
            with contextlib.suppress(OctopusError):  # a broker of ours may be gone already
                asyncio.run(topics.remove_all())


def _measure_group(cases: list[Case], plan: Plan, running: RunningBroker | None, topics: Topics | None) -> list[Line]:
    runs: dict[str, list[dict[str, float]]] = {case.name: [] for case in cases}
    errors: dict[str, str] = {}
    tasks: dict[str, Task] = {}

    def lines() -> list[Line]:
        return [_line(case, tasks.get(case.name), runs, errors) for case in cases]

    try:
        for round_number in range(plan.rounds):
            for case in cases:
                if case.name in errors:
                    continue
                _say(f"{round_number + 1}/{plan.rounds}  {case.identity}")
                try:
                    with _prepared(case, plan, running, topics) as task:
                        tasks[case.name] = task
                        runs[case.name].append(_run(case, task, plan))
                except (RunFailed, EnvironmentFailed, OctopusError) as error:
                    errors[case.name] = str(error)
                    _say(f"     failed: {error}")
    except KeyboardInterrupt:
        _say("Interrupted; these are the figures so far.")
        raise Interrupted(lines()) from None
    return lines()


class RunFailed(Exception):
    """A run ended without a result; the message is the last thing it said."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the lines of the group that was under way."""

    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self.lines = lines


@contextlib.contextmanager
def _prepared(case: Case, plan: Plan, running: RunningBroker | None, topics: Topics | None) -> Iterator[Task]:
    """Yield the task of one run: with a topic that is filled once for all, or one of its own to be written."""
    python_of(case.environment)
    workload = plan.scaled(case.workload or Workload(100, 1, 0, False, NOMINAL_RECORDS))
    wants_topic = case.workload is not None and topics is not None
    topic = (
        asyncio.run(topics.ready(workload, fill=case.fill, copies=case.copies))
        if wants_topic and topics is not None
        else ""
    )
    total = max(int(workload.records * case.share), 2)
    warm_up = min(max(total // 20, 1), 5000)
    try:
        yield Task(
            brokers=running.address if running is not None else "",
            topic=topic,
            partitions=workload.partitions,
            records=total - warm_up,
            warm_up=warm_up,
            value_bytes=workload.value_bytes,
            seed=SEED,
            options=case.options
            | {
                "broker_cores": plan.broker_cores,
                "client_cores": plan.client_cores,
                "broker_pids": list(running.pids) if running else [],
            },
        )
    finally:
        if topics is not None and topic and not case.fill:
            asyncio.run(topics.remove(topic))


def _run(case: Case, task: Task, plan: Plan) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OCTOPUS_")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a start would be a compilation
    task = dataclasses.replace(task, spawned=time.monotonic())
    cores = "" if case.every_core else plan.client_cores
    command = [python_of(case.environment), "-m", "benchmarks.child", cores, case.module, task.to_json()]
    if case.observer:
        task = dataclasses.replace(
            task, options=task.options | {"module": case.module, "environment": case.environment}
        )
        command = [sys.executable, "-m", "benchmarks.child", plan.broker_cores, case.observer, task.to_json()]
    # Some frameworks keep files in the directory they are started in.
    with tempfile.TemporaryDirectory(prefix="octopus-bench-") as directory:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=plan.deadline)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"no result within {plan.deadline:g} s") from None
        finally:
            _end_session(process)
    figures = read_answer(output)
    if figures is None:
        said = errors.strip().splitlines()
        raise RunFailed(said[-1] if said else f"exit code {process.returncode}")
    return figures


def _end_session(process: subprocess.Popen[str]) -> None:
    """End a run with all that it has started, feeders for example; Ctrl-C does not reach them by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _line(case: Case, task: Task | None, runs: Mapping[str, list[dict[str, float]]], errors: Mapping[str, str]) -> Line:
    figures = medians(runs[case.name])
    line: Line = {
        "suite": case.suite,
        "group": case.group,
        "case": case.name,
        "guarantee": case.guarantee,
        "figure": case.figure,
        "figures": {name: _significant(value) for name, value in figures.items()},
        "ratios": {},
        "cpu_ratios": {},
        "rounds": len(runs[case.name]),
        "runs": [_significant(run[case.figure]) for run in runs[case.name]],
        "versions": versions_of(case.environment) or machine.versions(),
        "options": case.options,
    }
    if task is not None and case.workload is not None:
        line |= {
            "value_bytes": task.value_bytes,
            "partitions": task.partitions,
            "copies": case.copies,
            "keys": case.workload.keys,
            "headers": len(HEADERS) if case.workload.headers else 0,
            "records": task.records,
            "warm_up": task.warm_up,
        }
    for baseline in case.baselines:
        other = medians(runs.get(baseline, []))
        if case.figure in figures and case.figure in other:
            line["ratios"][baseline] = _significant(figures[case.figure] / other[case.figure])
        if "cpu_us" in figures and "cpu_us" in other and case.figure == "records_per_second":
            # Upside down, so that in both columns more is better. On a busy machine this one is steadier.
            line["cpu_ratios"][baseline] = _significant(other["cpu_us"] / figures["cpu_us"])
    if case.name in errors:
        line["error"] = errors[case.name]
    return line


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of every figure."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: statistics.median(run[name] for run in runs if name in run) for name in names}


def _significant(value: float) -> float:
    return float(f"{value:.5g}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write(line: Line, path: Path | None) -> None:
    """Append a line to a file, or to standard output for `-`."""
    text = json.dumps(line)
    if path is None:
        return
    if str(path) == "-":
        print(text, flush=True)
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
