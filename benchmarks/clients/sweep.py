"""One point of the sweep: some producers fill a topic, then as many consumers read it.

python -m benchmarks.clients.sweep CLIENT WAY NUMBER TASK     is one of them

Beside the rates it takes what a simulation needs: CPU time of clients and brokers, and how many requests there were.
"""

import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.clients import sweep_librdkafka, sweep_octopus
from benchmarks.clients.sweeping import Busy, Done, percentile
from benchmarks.task import Task, answer, read_answer

CLIENTS: dict[str, Any] = {"librdkafka": sweep_librdkafka, "octopus": sweep_octopus}

SETTLING = 0.5
"""Seconds after the last acknowledgement in which followers catch up; what brokers compute then is counted, too."""

ON_OUR_BROKERS = ("broker_cpu_us", "broker_seconds", "broker_cores_taken", "client_cores_taken")
"""What is known of brokers that were started here. `taken` is the part of the cores that others used meanwhile."""

IDLE = 5.0
"""Seconds in which nobody asks for anything."""


def run(task: Task) -> dict[str, float]:
    """Do what the case asks for; rates are records by the time from the first client's start to the last one's end."""
    match task.options["way"]:
        case "idle":
            return idle(task)
        case "paced":
            return paced(task)
        case _:
            return produce_and_consume(task)


def produce_and_consume(task: Task) -> dict[str, float]:
    """Fill the topic, then read it."""
    produced, consumed = together("produce", task), together("consume", task)
    return {
        "produced_per_second": produced["rate"],
        "produced_mb_per_second": produced["rate"] * task.value_bytes / 1e6,
        "consumed_per_second": consumed["rate"],
        "consumed_mb_per_second": consumed["rate"] * task.value_bytes / 1e6,
        "p50_ms": produced["p50_ms"],
        "p99_ms": produced["p99_ms"],
        "producer_cpu_us": produced["cpu_us"],
        "consumer_cpu_us": consumed["cpu_us"],
        "records_per_produce": produced["records_per_request"],
        "records_per_fetch": consumed["records_per_request"],
        **{f"produce_{name}": produced[name] for name in ON_OUR_BROKERS if name in produced},
        **{f"consume_{name}": consumed[name] for name in ON_OUR_BROKERS if name in consumed},
    }


def paced(task: Task) -> dict[str, float]:
    """Publish at the rate that the case offers; take the time from when an event is due until it is acknowledged."""
    found = together("paced", task)
    return {
        "offered_per_second": task.options["rate"],
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        **{f"produce_{name}": found[name] for name in ON_OUR_BROKERS if name in found},
    }


def idle(task: Task) -> dict[str, float]:
    """Measure what brokers compute when nobody asks."""
    before = look(task)
    time.sleep(IDLE)
    return {"broker_idle_percent": 100 * (look(task).brokers - before.brokers) / IDLE}


def together(way: str, task: Task) -> dict[str, float]:
    """Run the clients side by side; return what they did, all together.

    Raises:
        RuntimeError: One of them failed; what it said is on standard error.
    """
    command = [sys.executable, "-m", "benchmarks.clients.sweep", task.options["client"], way]
    clients = [
        subprocess.Popen([*command, str(number), task.to_json()], stdout=subprocess.PIPE, text=True)
        for number in range(task.options["clients"])
    ]
    answers = []
    for client in clients:
        output, _ = client.communicate()
        figures = read_answer(output)
        if figures is None:
            raise RuntimeError(f"a client ended with exit code {client.returncode}")
        answers.append(figures)
    time.sleep(SETTLING)
    settled = look(task)
    first, last = min(answers, key=lambda one: one["begin"]), max(answers, key=lambda one: one["end"])
    records = sum(one["records"] for one in answers)
    found = {
        "rate": records / (last["end"] - first["begin"]),
        "cpu_us": 1e6 * sum(one["cpu"] for one in answers) / records,
        "records_per_request": records / max(sum(one["requests"] for one in answers), 1),
        "p50_ms": statistics.median(one["p50_ms"] for one in answers),
        "p99_ms": max(one["p99_ms"] for one in answers),
    }
    if task.options["broker_pids"]:
        wall = last["end"] - first["begin"]
        before, after = Busy(*first["before"]), Busy(*last["after"])
        cpu = sum(one["cpu"] for one in answers)
        broker_cores, client_cores = (_count(task.options[f"{whose}_cores"]) for whose in ("broker", "client"))
        found["broker_cpu_us"] = 1e6 * (settled.brokers - before.brokers) / records
        found["broker_seconds"] = time.monotonic() - first["begin"]
        ours = after.brokers - before.brokers
        found["broker_cores_taken"] = (after.broker_cores - before.broker_cores - ours) / (wall * broker_cores)
        found["client_cores_taken"] = (after.client_cores - before.client_cores - cpu) / (wall * client_cores)
    return found


def one_client(name: str, way: str, number: int, task: Task) -> dict[str, Any]:
    """Be one of the clients, on the clients' cores when the brokers have others."""
    if task.options["broker_pids"] and task.options["client_cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in task.options["client_cores"].split(",")})
    # Random, so that nothing between here and the disk can make less of it.
    values = [random.Random(task.seed + index).randbytes(task.value_bytes) for index in range(100)]
    done: Done = getattr(CLIENTS[name], way)(number, task, values, lambda: look(task))
    return {
        "begin": done.begin,
        "end": done.end,
        "records": done.records,
        "cpu": done.cpu,
        "requests": done.requests,
        "p50_ms": 1000 * percentile(done.latencies, 0.50),
        "p99_ms": 1000 * percentile(done.latencies, 0.99),
        "before": dataclasses.astuple(done.before),
        "after": dataclasses.astuple(done.after),
    }


def look(task: Task) -> Busy:
    """Return how busy brokers and cores were until now; zeros when the brokers are not ours."""
    pids = task.options["broker_pids"]
    if not pids:
        return Busy(0.0, 0.0, 0.0)
    return Busy(sum(map(_process, pids)), *(_cores(task.options[f"{whose}_cores"]) for whose in ("broker", "client")))


def _process(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cores(named: str) -> float:
    """Return the CPU seconds of everybody on some cores."""
    wanted = {f"cpu{core}" for core in named.split(",")}
    rows = [row.split() for row in Path("/proc/stat").read_text().splitlines()]
    # user, nice, system; not idle and waiting for disks; interrupts, and what the host took
    return sum(sum(map(int, [*row[1:4], *row[6:9]])) for row in rows if row[0] in wanted) / os.sysconf("SC_CLK_TCK")


def _count(cores: str) -> int:
    return len(cores.split(","))


if __name__ == "__main__":
    answer(one_client(sys.argv[1], sys.argv[2], int(sys.argv[3]), Task(**json.loads(sys.argv[4]))))
    os._exit(0)
