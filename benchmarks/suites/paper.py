"""The sweep of the paper's kind: event size, acknowledgements, partitions, copies, producers and consumers.

Producers and consumers are librdkafka processes, as many as the case says, on whatever cores there are: what is measured is
the cluster, and the line says how many cores that was on. Compare points of one run with each other.
"""

from benchmarks.cases import Case
from benchmarks.records import Workload

SIZES = {"32 B": 32, "1 KB": 1024, "4 KB": 4096}
ACKS = ("0", "1", "all")
PARTITIONS = (2, 4)
COPIES = (1, 3)
CLIENTS = (1, 2, 4)

SWEEP = [
    # One thing at a time away from the middle: 1 KB, acks=1, 2 partitions, 1 copy, 1 client each.
    *((size, "1", 2, 1, 1) for size in SIZES),
    *(("1 KB", acks, 2, 1, 1) for acks in ACKS),
    *(("1 KB", acks, 2, 3, 1) for acks in ACKS),
    *(("1 KB", "1", partitions, copies, 1) for partitions in PARTITIONS for copies in COPIES),
    *(("1 KB", "1", 4, 1, clients) for clients in CLIENTS),
    *((size, "all", 4, 3, 2) for size in SIZES),
]


def cases() -> list[Case]:
    """Return all points of the sweep, each once."""
    return [
        Case(
            "paper",
            "sweep",
            f"{size}, acks={acks}, {partitions} partitions, {copies} copies, {clients} + {clients} clients",
            "benchmarks.clients.sweep",
            figure="produced_per_second",
            workload=Workload(SIZES[size], partitions, 0, False, 100_000),
            fill=False,
            every_core=True,
            copies=copies,
            options={"acks": acks, "clients": clients},
        )
        for size, acks, partitions, copies, clients in dict.fromkeys(SWEEP)
    ]
