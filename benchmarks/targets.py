"""What the project wants to reach, as ratios of two figures of the same run, or as a plain bound."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.suites import transform
from benchmarks.suites.scale import KILLED

Key = tuple[str, str, str, float]
"""Suite, group, case, round trip in milliseconds."""

TYPED = "octopus typed"


@dataclasses.dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        sentence: What it says.
        ours: Suite, group and case.
        theirs: What it is compared with: suite, group and case; None for a bound on the figure itself.
        bound: Of the ratio or the figure.
        figure: Which figure.
        at_least: Whether the bound is a lower one.
        round_trip_ms: Of our case; theirs is measured on loopback.
        embedded: Whether it is about the embedded broker only.
    """

    sentence: str
    ours: tuple[str, str, str]
    theirs: tuple[str, str, str] | None
    bound: float
    figure: str = "records_per_second"
    at_least: bool = True
    round_trip_ms: float = 0.0
    embedded: bool = False

    def measured(self, lines: Mapping[Key, Mapping[str, Any]]) -> float | None:
        """Return the ratio or figure, or None when it was not measured."""
        ours, theirs = self._figures(lines, self.figure)
        return ours if self.theirs is None else _quotient(ours, theirs)

    def by_cpu(self, lines: Mapping[Key, Mapping[str, Any]]) -> float | None:
        """Return the ratio of records per CPU second, which a busy machine disturbs less, or None."""
        ours, theirs = self._figures(lines, "cpu_us")
        return _quotient(theirs, ours) if self.theirs is not None and self.figure == "records_per_second" else None

    def _figures(self, lines: Mapping[Key, Mapping[str, Any]], name: str) -> tuple[float | None, float | None]:
        ours = lines.get((*self.ours, self.round_trip_ms), {})
        theirs = lines.get((*self.theirs, 0.0), {}) if self.theirs is not None else {}
        return ours.get("figures", {}).get(name), theirs.get("figures", {}).get(name)


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _consume(ours: str, theirs: str, bound: float, group: str = "463 B", **more: Any) -> Target:
    link = f" at {more['round_trip_ms']:g} ms" if "round_trip_ms" in more else ""
    sentence = f"{ours}, {group}{link} : {theirs}"
    return Target(sentence, ("consume", group, ours), ("consume", group, theirs), bound, **more)


def _publish(theirs: str, bound: float, ours: str = "octopus publish_many", group: str = "100 B") -> Target:
    return Target(f"{ours}, {group} : {theirs}", ("publish", group, ours), ("publish", group, theirs), bound)


def _transform(ours: str, theirs: str, bound: float, **more: Any) -> Target:
    link = f" at {more['round_trip_ms']:g} ms" if "round_trip_ms" in more else ""
    places = ("transform", transform.GROUP, ours), ("transform", transform.GROUP, theirs)
    return Target(f"{ours}, {transform.GROUP}{link} : {theirs}", *places, bound, **more)


def _latency(figure: str, bound: float, load: str = "idle") -> Target:
    theirs = "aiokafka getmany(500)"
    sentence = f"octopus, {load}, {figure.removesuffix('_ms')} : {theirs}"
    return Target(sentence, ("latency", load, "octopus"), ("latency", load, theirs), bound, figure, at_least=False)


def _scale(group: str, ours: str, theirs: str) -> Target:
    sentence = f"{group}: cost of a record at {ours} : {theirs}"
    places = ("scale", group, ours), ("scale", group, theirs)
    return Target(sentence, *places, 1.3, "cpu_us", at_least=False)


def _killed(whose: str, figure: str, bound: float) -> Target:
    sentence = f"one of three supervised workers is killed: longest wait in {whose}, ms"
    return Target(sentence, ("scale", KILLED, "octopus"), None, bound, figure, at_least=False)


TARGETS = [
    _consume(TYPED, "aiokafka getmany(500)", 1.0),
    _consume(TYPED, "aiokafka getmany(500)", 0.83, "100 B"),
    _consume(TYPED, "quix", 3.5),
    _consume(TYPED, "arroyo", 4.0),
    _consume(TYPED, "faststream", 20.0),
    _consume(TYPED, "faststream ACK", 100.0),
    _consume("octopus filtered 0 %", "octopus filtered 100 %", 1.3),  # dropped and kept by the same pattern
    _consume("octopus filtered 0 %", TYPED, 1.3),  # and compared with no pattern at all
    _consume("octopus 64 key lanes", TYPED, 0.75),
    _consume("octopus suspending", TYPED, 0.45),
    _consume("octopus pydantic", "faststream batch ACK", 2.0),
    *(_consume(TYPED, "confluent consume(500)", 0.75, group) for group in ("463 B", "100 B")),
    *(_consume("octopus batch of 500", TYPED, 1.1, group) for group in ("100 B", "463 B", "2.5 KB")),
    _consume("octopus batch of 500", TYPED, 1.0, "64 KB"),
    _consume(TYPED, TYPED, 0.5, round_trip_ms=60.0),
    _transform(transform.FIRST, "quix apply, to_topic", 1.5),
    _transform(transform.FIRST, transform.BASELINE, 0.75),
    _transform(transform.FIRST, transform.EXACTLY_ONCE, 1.0),
    _transform(transform.FIRST, transform.FIRST, 0.5, round_trip_ms=60.0),
    _transform(transform.KEY_LANES, transform.FIRST, 0.8),
    _transform(transform.EXACTLY_ONCE, "quix apply, to_topic", 1.2),
    Target(
        "octopus typed, to=, embedded broker: durability fsync : os",
        ("embedded", "transform", transform.FSYNC),
        ("embedded", "transform", transform.OS),
        0.5,
    ),
    _publish("aiokafka send, then flush", 6.0),
    _publish("confluent produce, then flush", 1.0),
    _publish("confluent produce, then flush", 1.0, group="463 B"),
    _publish("confluent produce, then flush", 1.0, group="64 KB"),
    _publish("aiokafka send, then flush", 1.5, "octopus publish, 1,000 at once"),
    _publish("aiokafka send, then flush", 1.5, "octopus publish_soon, 1,000 at once"),
    _publish("confluent produce, then flush", 0.7, "octopus synchronous send, then flush"),
    _latency("p50_ms", 1.3),
    _latency("p99_ms", 2.0),
    _latency("p50_ms", 1.3, "90 % load"),
    _latency("p99_ms", 1.3, "90 % load"),
    _scale("partitions", "1,000", "1"),
    _scale("handlers in a group", "100", "1"),
    _scale("backlog", "records x 50", "records"),
    Target(
        "backlog: memory at records x 50 : records",
        ("scale", "backlog", "records x 50"),
        ("scale", "backlog", "records"),
        1.3,
        "memory_mb",
        at_least=False,
    ),
    _killed("its own partitions", "pause_ms", 3000),
    _killed("the others' partitions", "stayed_pause_ms", 1000),
    Target(
        "pattern of three fields on a decoded value, ns",
        ("patterns", "three fields, match", "octopus, decoded value"),
        None,
        1000,
        "nanoseconds",
        at_least=False,
    ),
    Target("librdkafka consumes, 100 B", ("broker", "load, 100 B", "librdkafka consume"), None, 2e6, embedded=True),
    Target(
        "broker's memory after producing, MB",
        ("broker", "load, 100 B", "librdkafka produce"),
        None,
        64,
        "broker_memory_mb",
        at_least=False,
        embedded=True,
    ),
    Target(
        "embedded broker starts, s",
        ("embedded", "start", "with nothing"),
        None,
        0.2,
        "seconds_to_first",
        at_least=False,
    ),
]
