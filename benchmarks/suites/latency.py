"""Latency: from the moment an event is due to be published until its handler has it."""

from benchmarks.cases import Case
from benchmarks.records import Workload

WORKLOAD = Workload(100, 4, 0, False, 100_000)

LOADS = {"idle": 0, "10 % load": 10, "50 % load": 50, "90 % load": 90}
"""Percentage of the rate at which a bare loop with the same handler would be busy all the time."""

STACKS = {
    "aiokafka getmany(500)": "benchmarks.clients.aiokafka_latency",
    "octopus": "benchmarks.clients.octopus_latency",
    "octopus, one loop": "benchmarks.clients.octopus_latency",
}


def cases() -> list[Case]:
    """Return all cases; idle ones publish by themselves, the others are fed by a process beside the broker."""
    return [
        Case(
            "latency",
            load,
            name,
            module,
            figure="p50_ms",
            baselines=("aiokafka getmany(500)",),
            guarantee="none" if name.startswith("aiokafka") else "at least once",
            workload=WORKLOAD,
            fill=False,
            options={"load": percent, "threaded": not name.endswith("one loop")},
        )
        for load, percent in LOADS.items()
        for name, module in STACKS.items()
    ]
