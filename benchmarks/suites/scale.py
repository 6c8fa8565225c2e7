"""Scale: whether a record costs the same when there is more of everything, and what a start or a rebalance costs."""

from typing import Any

from benchmarks.cases import Case
from benchmarks.records import Workload
from benchmarks.suites.consume import BASELINE

OCTOPUS = "benchmarks.clients.octopus_consume"
AIOKAFKA = "benchmarks.clients.aiokafka_consume"
SCALE = "benchmarks.clients.octopus_scale"
KILL = "benchmarks.clients.octopus_kill"

KILLED = "one of three supervised workers is killed"

NOMINAL = 100_000
AT_LEAST_ONCE = "at least once"


def cases() -> list[Case]:
    """Return all cases, group by group. In most groups the first one is what the others are compared with."""
    return [*_partitions(), *_handlers(), *_backlog(), *_keys(), *_stuck(), *_start(), *_rebalance(), *_killed()]


_BOTH: list[tuple[str, str, str, dict[str, Any]]] = [
    ("", OCTOPUS, "1", {}),
    ("aiokafka getmany(500), ", AIOKAFKA, "aiokafka getmany(500), 1", {"way": "getmany"}),
]


def _partitions() -> list[Case]:
    # More partitions need more records, or there would be nothing but beginnings and ends.
    return [
        _case("partitions", f"{who}{count:,}", module, Workload(100, count, 0, False, 2 * NOMINAL), base, **options)
        for who, module, base, options in _BOTH
        for count in (1, 10, 100, 1000)
    ]


def _handlers() -> list[Case]:
    return [
        _case("handlers in a group", str(count), OCTOPUS, Workload(463, 40, 1000, True, NOMINAL), "1", handlers=count)
        for count in (1, 10, 100)
    ]


def _backlog() -> list[Case]:
    # With the default of `--records`, from two thousand to ten million.
    return [
        _case("backlog", name, OCTOPUS, Workload(100, 4, 0, False, int(NOMINAL * factor)), "records")
        for name, factor in (
            ("records / 100", 0.01),
            ("records / 10", 0.1),
            ("records", 1.0),
            ("records x 10", 10.0),
            ("records x 50", 50.0),
        )
    ]


def _keys() -> list[Case]:
    return [
        _case(
            "keys",
            f"{count:,}",
            OCTOPUS,
            Workload(100, 4, count, False, NOMINAL),
            "1",
            ordering="key",
            concurrency=64,
        )
        for count in (1, 100, 10_000, 1_000_000)
    ]


def _stuck() -> list[Case]:
    return [
        _case(
            "one handler never returns",
            name,
            SCALE,
            Workload(463, 4, 1000, True, 2 * NOMINAL),
            "nobody stuck",
            figure="grown_mb",
            way="stuck",
            ordering=ordering,
            stuck=stuck,
        )
        for name, ordering, stuck in (
            ("nobody stuck", "partition", False),
            ("by partition", "partition", True),
            ("by key", "key", True),
            ("no order", "none", True),
        )
    ]


def _start() -> list[Case]:
    workload = Workload(100, 4, 0, False, NOMINAL // 100)
    return [
        _case(
            "from process start to the first record",
            name,
            module,
            workload,
            BASELINE,
            figure="seconds_to_first",
            way="first",
        )
        for name, module in ((BASELINE, AIOKAFKA), ("octopus", SCALE))
    ]


def _rebalance() -> list[Case]:
    return [
        _case(
            "a second worker joins and leaves",
            name,
            SCALE,
            Workload(100, 8, 0, False, NOMINAL),
            "octopus",
            figure="pause_ms",
            fill=False,
            way="rebalance",
            consumer=consumer,
        )
        for name, consumer in (
            ("octopus", {}),
            ("octopus, librdkafka eager", {"engine": "librdkafka", "assignor": "range"}),
            ("octopus, librdkafka cooperative", {"engine": "librdkafka"}),
            ("octopus, librdkafka KIP-848", {"engine": "librdkafka", "group_protocol": "consumer"}),
        )
    ]


def _killed() -> list[Case]:
    return [
        _case(
            KILLED,
            name,
            KILL,
            Workload(100, 6, 0, False, NOMINAL),
            "octopus",
            figure="pause_ms",
            fill=False,
            every_core=True,  # several processes, one of which starts while the others work
            consumer=consumer,
        )
        for name, consumer in (
            ("octopus", {}),
            ("octopus, librdkafka cooperative", {"engine": "librdkafka"}),
            ("octopus, librdkafka KIP-848", {"engine": "librdkafka", "group_protocol": "consumer"}),
        )
    ]


def _case(
    group: str,
    name: str,
    module: str,
    workload: Workload,
    base: str,
    *,
    figure: str = "records_per_second",
    fill: bool = True,
    every_core: bool = False,
    **options: Any,
) -> Case:
    return Case(
        "scale",
        group,
        name,
        module,
        figure=figure,
        baselines=(base,),
        guarantee="none" if module == AIOKAFKA else AT_LEAST_ONCE,
        workload=workload,
        fill=fill,
        every_core=every_core,
        options=options,
    )
