"""Consuming: from a topic that is full to a handler that was called for every record."""

from benchmarks.cases import Case
from benchmarks.records import FILTERS, Workload

OCTOPUS = "benchmarks.clients.octopus_consume"
OCTOPUS_TRANSPORT = "benchmarks.clients.octopus_transport"
AIOKAFKA = "benchmarks.clients.aiokafka_consume"
CONFLUENT = "benchmarks.clients.confluent_consume"

ONCE_AT_LEAST, ONCE_AT_MOST, NONE = "at least once", "at most once", "none"
WITH_HOLES = "at least once*"
"""Commits what was fetched, or loses it when a rebalance or a crash comes at the wrong time."""

WORKLOADS = {
    "463 B": Workload(463, 40, 1000, True, 100_000),
    "463 B, no headers": Workload(463, 40, 1000, False, 100_000),
    "100 B": Workload(100, 4, 0, False, 100_000),
    "2.5 KB": Workload(2500, 40, 1000, True, 100_000),
    "64 KB": Workload(65_536, 40, 1000, True, 100_000),
}

LIBRDKAFKA = {"engine": "librdkafka"}

BASELINE = "aiokafka getmany(500)"


def cases() -> list[Case]:
    """Return all cases, group by group."""
    return [case for group in WORKLOADS for case in _group(group)]


def _group(group: str) -> list[Case]:
    def case(name: str, module: str, guarantee: str = ONCE_AT_LEAST, **more: object) -> Case:
        share = float(more.pop("share", 1.0))  # type: ignore[arg-type]
        environment = str(more.pop("environment", ""))
        baselines = (BASELINE, "octopus typed")
        workload = WORKLOADS[group]
        if workload.value_bytes > 463 and "batch" not in more:
            share = min(1.0, share * 2)  # of batches the last ones are partial, and wait for company
        return Case(
            "consume",
            group,
            name,
            module,
            baselines=baselines,
            guarantee=guarantee,
            workload=workload,
            share=share,
            options=dict(more),
            environment=environment,
        )

    main = [
        case(BASELINE, AIOKAFKA, NONE, way="getmany"),
        case("aiokafka getmany(500), uvloop", AIOKAFKA, NONE, way="getmany", uvloop=True),
        case("aiokafka getmany(500), typed handler", AIOKAFKA, NONE, way="typed"),
        case("aiokafka getone", AIOKAFKA, NONE, way="getone"),
        case("confluent consume(500)", CONFLUENT, NONE),
        case("confluent consume(500), tuned", CONFLUENT, NONE, tuned=True),
        case("octopus transport, no handler", OCTOPUS_TRANSPORT, NONE),
        case("octopus transport, librdkafka, no handler", OCTOPUS_TRANSPORT, NONE, consumer=LIBRDKAFKA),
        case("octopus typed", OCTOPUS),
        case("octopus typed, librdkafka", OCTOPUS, consumer=LIBRDKAFKA),
        case("octopus typed, one loop", OCTOPUS, threaded=False),
        case("octopus bytes", OCTOPUS, type="bytes"),
        case("octopus untyped", OCTOPUS, type="dict"),
        case("octopus pydantic", OCTOPUS, type="pydantic"),
        case("octopus batch of 500", OCTOPUS, batch=500, share=0.8),
        *(case(f"octopus filtered {percent} %", OCTOPUS, match=percent) for percent in FILTERS),
    ]
    if group == "463 B":
        main += [
            case("octopus event object", OCTOPUS, type="event"),
            case("octopus 64 key lanes", OCTOPUS, ordering="key", concurrency=64),
            case("octopus 64 key lanes, suspending", OCTOPUS, ordering="key", concurrency=64, work="suspend"),
            case("octopus suspending", OCTOPUS, work="suspend"),
            case(
                "octopus 1 ms of I/O, 1,000 at once", OCTOPUS, ordering="none", concurrency=1000, work="io", share=0.5
            ),
        ]
    if group == "463 B, no headers":
        return main  # for us alone: what headers cost
    return main + [
        case(name, f"benchmarks.peers.{module}", guarantee, **more) for name, module, guarantee, more in PEERS
    ]


PEERS: list[tuple[str, str, str, dict[str, object]]] = [
    ("faststream", "faststream", ONCE_AT_MOST, {"environment": "faststream", "share": 0.3}),
    ("faststream ACK", "faststream", WITH_HOLES, {"environment": "faststream", "policy": "ack", "share": 0.03}),
    (
        "faststream batch ACK",
        "faststream",
        WITH_HOLES,
        {"environment": "faststream", "policy": "ack", "batch": True, "share": 0.5},
    ),
    (
        "faststream confluent",
        "faststream_confluent",
        ONCE_AT_MOST,
        {"environment": "faststream_confluent", "share": 0.1},
    ),
    (
        "faststream confluent ACK",
        "faststream_confluent",
        WITH_HOLES,
        {"environment": "faststream_confluent", "policy": "ack", "share": 0.03},
    ),
    (
        "faststream confluent batch ACK",
        "faststream_confluent",
        WITH_HOLES,
        {"environment": "faststream_confluent", "policy": "ack", "batch": True, "share": 0.3},
    ),
    ("quix", "quix", ONCE_AT_LEAST, {"environment": "quix"}),
    ("arroyo", "arroyo", ONCE_AT_LEAST, {"environment": "arroyo"}),
    ("faust", "faust", WITH_HOLES, {"environment": "faust", "share": 0.2}),
    ("faust typed", "faust", WITH_HOLES, {"environment": "faust", "typed": True, "share": 0.2}),
    ("kstreams", "kstreams", NONE, {"environment": "kstreams"}),
    ("kstreams, 500 a fetch", "kstreams", NONE, {"environment": "kstreams", "many": True}),
    ("asyncfast", "asyncfast", WITH_HOLES, {"environment": "asyncfast", "share": 0.5}),
]
