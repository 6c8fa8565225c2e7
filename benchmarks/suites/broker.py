"""The broker under librdkafka, which asks more of it than Python clients can; and the embedded one's start and repair."""

from benchmarks.cases import Case
from benchmarks.records import Workload

LOAD = "benchmarks.clients.broker_load"
LIFE = "benchmarks.clients.broker_life"
GREEDY = "benchmarks.clients.broker_greedy"

WORKLOAD = Workload(100, 4, 0, False, 500_000)


def cases() -> list[Case]:
    """Return all cases."""
    return [
        Case(
            "broker",
            "load, 100 B",
            "librdkafka consume",
            LOAD,
            workload=WORKLOAD,
            every_core=True,
            options={"way": "kcat"},
        ),
        Case(
            "broker",
            "load, 100 B",
            "librdkafka consume, an object for each record",
            LOAD,
            workload=WORKLOAD,
            every_core=True,
            options={"way": "consume"},
        ),
        Case(
            "broker",
            "load, 100 B",
            "librdkafka produce",
            LOAD,
            workload=WORKLOAD,
            every_core=True,
            fill=False,
            options={"way": "produce"},
        ),
        Case("embedded", "start", "with nothing", LIFE, figure="seconds_to_first", options={"way": "start"}),
        Case(
            "embedded",
            "start",
            "again after a kill",
            LIFE,
            figure="recovery_s_per_gb",
            workload=Workload(463, 4, 0, False, 500_000),
            fill=False,  # it fills one of its own
            options={"way": "recover"},
        ),
        *(
            Case(
                "embedded",
                "beside a greedy client",
                kind,
                GREEDY,
                figure="produce_p99_ratio",
                workload=Workload(1000, 1, 0, False, 1_000),
                fill=False,
                every_core=True,  # the broker is its child
                options={"kind": kind},
            )
            for kind in ("thousands of partitions", "announced bytes", "idle connections")
        ),
    ]
