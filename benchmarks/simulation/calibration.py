"""Costs from measured lines: least squares over some of the points of the sweep, none of them negative.

The points that are left out are what the simulation is checked against.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.simulation.costs import Broker, Client, Cost

Line = dict[str, Any]

ROUNDS = 20_000
"""Steps of the descent; the systems are tiny."""

BEHAVIOUR = {
    # linger.ms=5 and the queue are what the sweep sets, the others librdkafka's defaults.
    "librdkafka": Client(batch_bytes=1_000_000, batch_records=10_000, linger=0.005, in_flight=5, queue_records=50_000),
    # The defaults of `[producer]`; the sweep hands over 5,000 at once or 8 MiB and waits for them.
    "octopus": Client(batch_bytes=64 * 1024, linger=0.0, in_flight=1, joint=True, chunk_records=5000),
}


@dataclasses.dataclass(frozen=True)
class Costs:
    """What was found.

    Attributes:
        clients: Make → behaviour and cost.
        broker: One of the brokers.
    """

    clients: dict[str, Client]
    broker: Broker


class Uncalibrated(Exception):
    """The lines lack what costs are made from; the message says what."""


def nodes(line: Line) -> int:
    """Return on how many brokers a line was measured."""
    said = line["broker"].rpartition(", ")[2].removesuffix(" brokers")
    return int(said) if said.isdigit() else 1


def sweep_of(lines: Iterable[Line]) -> list[Line]:
    """Return the lines of the sweep that have figures of brokers."""
    return [
        line
        for line in lines
        if (line["suite"], line["group"]) == ("paper", "sweep") and "produce_broker_cpu_us" in line["figures"]
    ]


def calibrates(line: Line) -> bool:
    """Tell whether a point of the sweep is for calibration; the others are for checking."""
    partitions = {"librdkafka": 2, "octopus": 4}[line["options"]["client"]]
    usual = not line["round_trip_ms"] and nodes(line) > 1 and "batch_bytes" not in line["options"]
    return bool(usual and line["options"]["clients"] == 1 and line["partitions"] == partitions)


def calibrate(lines: Sequence[Line]) -> Costs:
    """Return the costs that explain the points for calibration best.

    Raises:
        Uncalibrated: Points or figures are missing: the sweep did not run, or on brokers that were not started for it.
    """
    points = [line for line in sweep_of(lines) if calibrates(line)]
    makes = sorted({line["options"]["client"] for line in points})
    idle = [line["figures"]["broker_idle_percent"] / 100 / nodes(line) for line in lines if line["group"] == "idle"]
    if not makes or not idle:
        raise Uncalibrated(
            "These lines have no costs of brokers: they come from `scripts/bench paper --broker kafka --nodes 3`."
        )
    clients = {make: _client(make, [line for line in points if line["options"]["client"] == make]) for make in makes}
    return Costs(clients, _broker(points, idle[0]))


def _client(make: str, points: list[Line]) -> Client:
    produce = [(_row(line, "records_per_produce"), line["figures"]["producer_cpu_us"] / 1e6) for line in points]
    consume = [(_row(line, "records_per_fetch"), line["figures"]["consumer_cpu_us"] / 1e6) for line in points]
    return dataclasses.replace(BEHAVIOUR[make], produce=Cost(*_solve(produce)), consume=Cost(*_solve(consume)))


def _broker(points: list[Line], idle: float) -> Broker:
    append, fetch = [], []
    for line in points:
        row = _row(line, "records_per_produce")
        # How often followers fetched is not measured: once for each produce request, while there are few at a time.
        copied = [(line["copies"] - 1) * one for one in (row[0], row[2])]
        if known(line, "produce", idle):
            append.append(([*row, *copied], broker_seconds(line, "produce", idle)))
        if known(line, "consume", idle):
            fetch.append((_row(line, "records_per_fetch"), broker_seconds(line, "consume", idle)))
    if not append or not fetch:
        raise Uncalibrated("Brokers did no more than when idle: measure with more --records.")
    request, record, byte, copied_request, copied_byte = _solve(append)
    return Broker(Cost(request, record, byte), Cost(copied_request, 0.0, copied_byte), Cost(*_solve(fetch)), idle)


def _row(line: Line, requests: str) -> list[float]:
    """Return what one record takes: its part of a request, itself, its bytes."""
    return [1 / line["figures"][requests], 1.0, float(line["value_bytes"])]


def known(line: Line, way: str, idle: float) -> bool:
    """Tell whether brokers worked enough to be seen beside what they do when idle."""
    return broker_seconds(line, way, idle) > 0.5e-6 * line["figures"][f"{way}_broker_cpu_us"]


def broker_seconds(line: Line, way: str, idle: float) -> float:
    """Return the brokers' seconds for a record, without what they do when idle."""
    figures = line["figures"]
    rested = idle * nodes(line) * figures[f"{way}_broker_seconds"] / _handled(line, way)
    return float(figures[f"{way}_broker_cpu_us"] / 1e6 - rested)


def _handled(line: Line, way: str) -> float:
    """Return how many records the brokers took, or gave out."""
    total = line["records"] + line["warm_up"]
    fan_out = line["options"]["clients"] if way == "consume" and line["options"]["client"] == "octopus" else 1
    return float(total * fan_out)


def _solve(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """Return the unknowns, none negative, with the least squares of *relative* errors; by coordinate descent."""
    scaled = [[value / right for value in left] for left, right in rows]
    unknowns = len(scaled[0])
    solution = [0.0] * unknowns
    # Each unknown in units of what it would be alone, so that all move at the same pace.
    weights = [sum(row[one] ** 2 for row in scaled) ** 0.5 or 1.0 for one in range(unknowns)]
    scaled = [[value / weight for value, weight in zip(row, weights, strict=True)] for row in scaled]
    for _ in range(ROUNDS):
        moved = 0.0
        for one in range(unknowns):
            gradient = sum(row[one] * (sum(map(_product, row, solution)) - 1.0) for row in scaled)
            better = max(0.0, solution[one] - gradient)
            moved, solution[one] = max(moved, abs(better - solution[one])), better
        if moved < 1e-12:
            break
    return [value / weight for value, weight in zip(solution, weights, strict=True)]


def _product(one: float, other: float) -> float:
    return one * other
