"""Transforming: read, handle, publish; from a topic that is full to outputs that stand in another one."""

from benchmarks.cases import Case
from benchmarks.records import Workload
from benchmarks.suites.consume import ONCE_AT_LEAST, ONCE_AT_MOST, WITH_HOLES

OBSERVER = "benchmarks.observer"
OCTOPUS = "benchmarks.clients.octopus_transform"
CONFLUENT = "benchmarks.clients.confluent_transform"

GROUP = "150 B"

WORKLOAD = Workload(150, 12, 1000, False, 200_000)

BASELINE = "confluent loop"
FIRST = "octopus typed, to="
"""As a user first writes it: the order of the partition, at least once."""
EXACTLY_ONCE = "octopus typed, to=, exactly once"
KEY_LANES = "octopus typed, to=, 64 key lanes"
BATCH = "octopus batch of 500, to="

FSYNC, OS = "durability fsync", "durability os"


def cases() -> list[Case]:
    """Return all cases; those of the suite `embedded` start brokers of their own, which differ in durability."""
    return [
        _case(BASELINE, CONFLUENT, typed=True),
        _case(f"{BASELINE}, json of the standard library", CONFLUENT),
        _case(FIRST, OCTOPUS),
        _case(KEY_LANES, OCTOPUS, ordering="key", concurrency=64),
        _case(EXACTLY_ONCE, OCTOPUS, "exactly once", delivery="exactly_once"),
        _case(BATCH, OCTOPUS, batch=500),
        *(
            _case(name, f"benchmarks.peers.{environment}_transform", guarantee, environment, share, **options)
            for name, environment, guarantee, share, options in PEERS
        ),
        *(
            _case(name, OCTOPUS, suite="embedded", group="transform", baseline=OS, durability=durability)
            for name, durability in ((OS, "os"), (FSYNC, "fsync"))
        ),
    ]


PEERS: list[tuple[str, str, str, float, dict[str, object]]] = [
    ("quix apply, to_topic", "quix", ONCE_AT_LEAST, 1.0, {}),
    ("faststream publisher", "faststream", ONCE_AT_MOST, 0.02, {}),
    ("faststream publisher ACK", "faststream", WITH_HOLES, 0.02, {"policy": "ack"}),
    ("faust sink", "faust", WITH_HOLES, 0.05, {}),
]
"""Those that wait for each acknowledgement read a part of the topic."""


def _case(
    name: str,
    module: str,
    guarantee: str = ONCE_AT_LEAST,
    environment: str = "",
    share: float = 1.0,
    suite: str = "transform",
    group: str = GROUP,
    baseline: str = BASELINE,
    **options: object,
) -> Case:
    return Case(
        suite,
        group,
        name,
        module,
        baselines=(baseline,),
        guarantee=guarantee,
        workload=WORKLOAD,
        share=share,
        observer=OBSERVER,
        environment=environment,
        options={"keys": WORKLOAD.keys, "whole": share == 1.0, **options},
    )
