"""Publishing: from a value in memory to its acknowledgement, by all in-sync replicas and idempotent unless a case says less."""

from benchmarks.cases import Case
from benchmarks.records import Workload

OCTOPUS = "benchmarks.clients.octopus_publish"
AIOKAFKA = "benchmarks.clients.aiokafka_publish"
CONFLUENT = "benchmarks.clients.confluent_publish"

WORKLOADS = {
    "100 B": (Workload(100, 4, 0, False, 100_000), "none"),
    "463 B": (Workload(463, 40, 1000, True, 100_000), "none"),
    "463 B, zstd": (Workload(463, 40, 1000, True, 100_000), "zstd"),
    "463 B, lz4": (Workload(463, 40, 1000, True, 100_000), "lz4"),
    "64 KB": (Workload(65_536, 4, 1000, True, 100_000), "none"),
}

BASELINES = ("aiokafka send, then flush", "confluent produce, then flush")

CASES = [
    # (name, module, way, share): what waits for every single one needs fewer of them.
    (BASELINES[0], AIOKAFKA, "flush", 0.25),
    ("aiokafka send_and_wait one by one", AIOKAFKA, "one", 0.01),
    ("aiokafka send_batch", AIOKAFKA, "batch", 1.0),
    (BASELINES[1], CONFLUENT, "flush", 1.0),
    ("confluent produce one by one", CONFLUENT, "one", 0.01),
    ("octopus publish one by one", OCTOPUS, "one", 0.01),
    ("octopus publish, 1,000 at once", OCTOPUS, "gather", 0.25),
    ("octopus publish_soon, 1,000 at once", OCTOPUS, "soon", 0.25),
    ("octopus publish_many", OCTOPUS, "many", 1.0),
    ("octopus publish_many, encoding structs", OCTOPUS, "structs", 1.0),
    ("octopus synchronous publish_many", OCTOPUS, "synchronous", 1.0),
    ("octopus synchronous send, then flush", OCTOPUS, "send", 1.0),
]

LESS = [
    (f"{name}, acks={acks}", module, "flush", share, acks)
    for name, module, share in (
        ("aiokafka send, then flush", AIOKAFKA, 0.25),
        ("confluent produce, then flush", CONFLUENT, 1.0),
    )
    for acks in ("1", "0")
]
"""What clients may settle for; ours always asks for all."""


def cases() -> list[Case]:
    """Return all cases, group by group."""
    every = [(*case, "all") for case in CASES]
    return [
        Case(
            "publish",
            group,
            name,
            module,
            baselines=BASELINES,
            guarantee="acks=all, idempotent" if acks == "all" else f"acks={acks}",
            workload=workload,
            fill=False,
            share=share,
            options={
                "way": way,
                "acks": acks,
                "compression": compression,
                "keys": workload.keys,
                "headers": workload.headers,
            },
        )
        for group, (workload, compression) in WORKLOADS.items()
        for name, module, way, share, acks in (every + LESS if group == "100 B" else every)
    ]
