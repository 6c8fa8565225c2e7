"""One point of the sweep: some producers fill a topic, then as many consumers read it.

python -m benchmarks.clients.sweep CLIENT WAY NUMBER TASK     is one of them

Beside the rates it takes what a simulation needs: CPU time of clients and brokers, and how many requests there were.
"""

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
from benchmarks.clients.sweeping import Done, percentile
from benchmarks.task import Task, answer, read_answer

CLIENTS: dict[str, Any] = {"librdkafka": sweep_librdkafka, "octopus": sweep_octopus}

SETTLING = 0.5
"""Seconds after the last acknowledgement in which followers catch up; what brokers compute then is counted, too."""

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
        **{f"produce_{name}": value for name, value in produced.items() if name.startswith("broker_")},
        **{f"consume_{name}": value for name, value in consumed.items() if name.startswith("broker_")},
    }


def paced(task: Task) -> dict[str, float]:
    """Publish at the rate that the case offers; take the time from when an event is due until it is acknowledged."""
    found = together("paced", task)
    return {"offered_per_second": task.options["rate"], "p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"]}


def idle(task: Task) -> dict[str, float]:
    """Measure what brokers compute when nobody asks."""
    before = brokers_cpu(task)
    time.sleep(IDLE)
    if before is None:
        return {}
    return {"broker_idle_percent": 100 * (brokers_cpu(task) - before) / IDLE}


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
    first, last = min(answers, key=lambda one: one["begin"]), max(answers, key=lambda one: one["end"])
    records = sum(one["records"] for one in answers)
    found = {
        "rate": records / (last["end"] - first["begin"]),
        "cpu_us": 1e6 * sum(one["cpu"] for one in answers) / records,
        "records_per_request": records / max(sum(one["requests"] for one in answers), 1),
        "p50_ms": statistics.median(one["p50_ms"] for one in answers),
        "p99_ms": max(one["p99_ms"] for one in answers),
    }
    if "brokers_cpu" in first:
        found["broker_cpu_us"] = 1e6 * (brokers_cpu(task) - first["brokers_cpu"]) / records
        found["broker_seconds"] = time.monotonic() - first["begin"]
    return found


def one_client(name: str, way: str, number: int, task: Task) -> dict[str, float]:
    """Be one of the clients, on the clients' cores when the brokers have others."""
    if task.options["broker_pids"] and task.options["client_cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in task.options["client_cores"].split(",")})
    # Random, so that nothing between here and the disk can make less of it.
    values = [random.Random(task.seed + index).randbytes(task.value_bytes) for index in range(100)]
    done: Done = getattr(CLIENTS[name], way)(number, task, values, lambda: brokers_cpu(task))
    return {
        "begin": done.begin,
        "end": done.end,
        "records": done.records,
        "cpu": done.cpu,
        "requests": done.requests,
        "p50_ms": 1000 * percentile(done.latencies, 0.50),
        "p99_ms": 1000 * percentile(done.latencies, 0.99),
        **({"brokers_cpu": done.brokers_cpu} if done.brokers_cpu is not None else {}),
    }


def brokers_cpu(task: Task) -> Any:
    """Return the CPU seconds that all brokers have used, or None when they are not ours."""
    pids = task.options["broker_pids"]
    return sum(map(_cpu, pids)) if pids else None


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    answer(one_client(sys.argv[1], sys.argv[2], int(sys.argv[3]), Task(**json.loads(sys.argv[4]))))
    os._exit(0)
