"""What the simulation says beside what was measured."""

import dataclasses
import math
from collections.abc import Sequence

from benchmarks.markdown import error, number, size, table
from benchmarks.simulation.calibration import Costs, Line, broker_seconds, calibrate, calibrates, nodes, sweep_of
from benchmarks.simulation.cluster import simulate
from benchmarks.simulation.scenario import Outcome, Scenario, percentile


def check(lines: Sequence[Line]) -> str:
    """Measured points that the calibration did not see, beside what the simulation says."""
    found = calibrate(lines)
    rows = []
    for line in sweep_of(lines):
        if calibrates(line):
            continue
        figures = line["figures"]
        produced, consumed = _produced_as_measured(line, found), _consumed_as_measured(line, found)
        row = [_point(line)]
        for simulated, real in (
            (produced.produced, figures["produced_per_second"]),
            (consumed.consumed, figures["consumed_per_second"]),
            (_per(produced.produced, produced.produce_requests), figures["records_per_produce"]),
            (_broker_us(produced, found, line), 1e6 * broker_seconds(line, "produce", found.broker.idle)),
        ):
            row += [number(real), number(simulated), error(simulated, real)]
        rows.append(row)
    headings = ["point"]
    for name in ("produced/s", "consumed/s", "events a produce request", "brokers' µs, produced"):
        headings += [name, "simulated", "off by"]
    return table(headings, rows)


def latency(lines: Sequence[Line]) -> str:
    """Time until acknowledgements at given rates, beside what the simulation says."""
    found = calibrate(lines)
    rows = []
    for line in lines:
        if (line["suite"], line["group"]) != ("paper", "acknowledged after"):
            continue
        after = _produced_as_measured(line, found, line["options"]["rate"]).acknowledged_after
        row = [f"{line['options']['client']}, {line['options']['rate']:,}/s offered, {_copies(line)}"]
        for part in (0.5, 0.99):
            real, simulated = line["figures"][f"p{100 * part:g}_ms"], 1000 * percentile(after, part)
            row += [number(real), number(simulated), error(simulated, real)]
        rows.append(row)
    return table(["point", "p50 ms", "simulated", "off by", "p99 ms", "simulated", "off by"], rows)


def _point(line: Line) -> str:
    options = line["options"]
    link = f", round trip {line['round_trip_ms']:g} ms" if line["round_trip_ms"] else ""
    return (
        f"{options['client']}{batches_of(line)}, {size(line['value_bytes'])}, acks={options['acks']}, {line['partitions']} partitions, "
        f"{_copies(line)}, {options['clients']} + {options['clients']}{link}"
    )


def _copies(line: Line) -> str:
    return "1 copy" if line["copies"] == 1 else f"{line['copies']} copies"


def _produced_as_measured(line: Line, found: Costs, rate: float | None = None) -> Outcome:
    """Simulate publishing on the machine that a point was measured on."""
    scenario = _scenario(line, found, "produce")
    return simulate(dataclasses.replace(scenario, producers=line["options"]["clients"], rate=rate), 2.0)


def _consumed_as_measured(line: Line, found: Costs) -> Outcome:
    """Simulate reading the full topic. Our consumers read all of it each, in groups of their own; librdkafka's share it."""
    clients, apart = line["options"]["clients"], line["options"]["client"] == "octopus"
    groups, consumers = ((1.0,) * clients, 1) if apart else ((1.0,), clients)
    scenario = _scenario(line, found, "consume")
    return simulate(dataclasses.replace(scenario, groups=groups, consumers=consumers, backlog=True), 2.0)


def _scenario(line: Line, found: Costs, way: str) -> Scenario:
    """Return the machine of a point: some cores for all brokers, some for all clients, less what other programs took."""
    options, figures = line["options"], line["figures"]
    client = found.clients[options["client"]]
    if "batch_bytes" in options:
        client = dataclasses.replace(client, batch_bytes=options["batch_bytes"])
    return Scenario(
        client,
        found.broker,
        event_bytes=line["value_bytes"],
        partitions=line["partitions"],
        copies=line["copies"],
        acks=options["acks"],
        brokers=nodes(line),
        broker_cores=len(line["broker_cores"].split(",")),
        one_machine=True,
        producers=0,
        client_cores=len(line["client_cores"].split(",")),
        broker_cores_taken=max(0.0, figures[f"{way}_broker_cores_taken"]),
        client_cores_taken=max(0.0, figures[f"{way}_client_cores_taken"]),
        round_trip=line["round_trip_ms"] / 1000,
    )


def _broker_us(outcome: Outcome, found: Costs, line: Line) -> float:
    """Return what brokers computed for an event, without what they and others compute anyway."""
    cores = len(line["broker_cores"].split(","))
    taken = max(0.0, line["figures"]["produce_broker_cores_taken"]) * cores
    worked = outcome.busy["broker cores"] * cores - taken - found.broker.idle * nodes(line)
    return 1e6 * _per(worked, outcome.produced)


def _worked_us(line: Line, found: Costs, way: str) -> float:
    return 1e6 * broker_seconds(line, way, found.broker.idle)


def _per(one: float, other: float) -> float:
    return one / other if other else math.nan


def batches_of(line: Line) -> str:
    """Return how batches differ from the default, for a name."""
    return ", 1 MiB batches" if "batch_bytes" in line["options"] else ""
