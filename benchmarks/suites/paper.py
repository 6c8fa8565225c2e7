"""The sweep of the paper's kind: event size, acknowledgements, partitions, copies, producers and consumers.

Producers and consumers are librdkafka's or our own, as many as the case says: on a cluster that was started here they share
the last core and the brokers have the others; on any other they use what there is. Compare points of one run with each other.
"""

from benchmarks.cases import Case
from benchmarks.records import Workload

MODULE = "benchmarks.clients.sweep"

SIZES = {"32 B": 32, "1 KB": 1024, "4 KB": 4096}
ACKS = ("0", "1", "all")
PARTITIONS = (2, 4)
COPIES = (1, 3)
CLIENTS = (1, 2, 4)
RATES = (500, 2000, 8000)
"""Events per second that are offered, for latencies of a system that keeps up."""

LARGE_BATCHES = "octopus, 1 MiB batches"
"""With `producer.max_batch_bytes` of 1 MiB, where the others have 64 KiB."""

Point = tuple[str, str, str, int, int, int]
"""Client, size, acks, partitions, copies, how many producers and as many consumers."""

SWEEP: list[Point] = [
    # One thing at a time away from the middle: 1 KB, acks=1, 2 partitions, 1 copy, 1 client each.
    *(("librdkafka", size, "1", 2, 1, 1) for size in SIZES),
    *(("librdkafka", "1 KB", acks, 2, copies, 1) for copies in COPIES for acks in ACKS),
    *(("librdkafka", "1 KB", "1", partitions, copies, 1) for partitions in PARTITIONS for copies in COPIES),
    *(("librdkafka", "1 KB", "1", 4, 1, clients) for clients in CLIENTS),
    *(("librdkafka", size, "all", 4, 3, 2) for size in SIZES),
    # Our own, which always ask for all in-sync replicas.
    *(("octopus", size, "all", 4, copies, 1) for copies in COPIES for size in SIZES),
    *(("octopus", "1 KB", "all", partitions, 3, 1) for partitions in PARTITIONS),
    *(("octopus", "1 KB", "all", 4, 3, clients) for clients in CLIENTS[:2]),
    *((LARGE_BATCHES, size, "all", 4, 3, 1) for size in ("1 KB", "4 KB")),
]

RECORDS = {"32 B": 800_000, "1 KB": 100_000, "4 KB": 30_000}
"""For a plan of 100,000: small events need more of them to take a while."""


def cases() -> list[Case]:
    """Return all points of the sweep, each once; then latencies at given rates, and brokers that idle."""
    return [*map(_point, dict.fromkeys(SWEEP)), *_paced(), _idle()]


def _point(point: Point) -> Case:
    client, size, acks, partitions, copies, clients = point
    batch = {"batch_bytes": 2**20} if client == LARGE_BATCHES else {}
    copied = f"{copies} {'copy' if copies == 1 else 'copies'}"
    return Case(
        "paper",
        "sweep",
        f"{client}, {size}, acks={acks}, {partitions} partitions, {copied}, {clients} + {clients} clients",
        MODULE,
        figure="produced_per_second",
        workload=Workload(SIZES[size], partitions, 0, False, RECORDS[size]),
        fill=False,
        every_core=True,
        copies=copies,
        options={"way": "sweep", "client": client.partition(",")[0], "acks": acks, "clients": clients, **batch},
    )


def _paced() -> list[Case]:
    return [
        Case(
            "paper",
            "acknowledged after",
            f"{client}, 1 KB, acks=all, 3 copies, {rate:,}/s",
            MODULE,
            figure="p50_ms",
            # Five seconds of them for a plan of 100,000.
            workload=Workload(1024, 4, 0, False, 5 * rate),
            fill=False,
            every_core=True,
            copies=3,
            options={"way": "paced", "client": client, "acks": "all", "clients": 1, "rate": rate},
        )
        for client in ("librdkafka", "octopus")
        for rate in RATES
    ]


def _idle() -> Case:
    options = {"way": "idle", "client": "", "acks": "", "clients": 0}
    return Case("paper", "idle", "nobody asks", MODULE, figure="broker_idle_percent", every_core=True, options=options)
