"""From the costs of one event to those of millions a second: by multiplication, and simulated."""

import dataclasses
import math
from collections.abc import Sequence

from benchmarks.markdown import number, size, table
from benchmarks.simulation.calibration import Costs, Line, calibrate
from benchmarks.simulation.cluster import simulate
from benchmarks.simulation.scenario import Scenario, percentile
from benchmarks.simulation.shares import append_seconds, batch_of, consume_seconds, fetch_seconds, produce_seconds

PRODUCED, CONSUMED = 4.2e6, 9.6e6
"""Events a second: what the Octopus paper (arXiv 2407.11432) reports in its abstract."""

SIZES = (32, 1024, 4096)
COPIES = 2
"""The existing service's topics have two copies."""

LINK = 1.25e9
"""Bytes a second of a link of 10 Gbit/s."""

DISK = 1.0e9
"""Bytes a second that a broker's disks write. A guess at a local NVMe disk."""

NEAR = 0.0005
"""Round trip within a data centre, seconds. A guess."""

LOAD = 0.7
"""The part of a core, link or disk that a plan makes use of; the rest is for bursts, rebalances and a broker that is away."""


def plan(lines: Sequence[Line]) -> str:
    """How many of everything the paper's rates take, and ten times as much: multiplication."""
    found = calibrate(lines)
    rows = []
    for factor in (1, 10):
        for bytes_ in SIZES:
            produced, consumed = PRODUCED * factor, CONSUMED * factor
            ours, theirs = found.clients["octopus"], found.clients["librdkafka"]
            cores = produced * append_seconds(found.broker, bytes_, COPIES) + consumed * fetch_seconds(
                found.broker, bytes_
            )
            inward, outward = produced * COPIES * bytes_, (produced * (COPIES - 1) + consumed) * bytes_
            rows.append(
                [
                    f"{produced / 1e6:g} M + {consumed / 1e6:g} M",
                    size(bytes_),
                    _count(produced * produce_seconds(ours, bytes_)),
                    _count(produced * produce_seconds(theirs, bytes_)),
                    _count(consumed * consume_seconds(ours, bytes_)),
                    _count(cores),
                    number(inward / 1e9),
                    number(outward / 1e9),
                    _count(max(inward, outward) / LINK),
                    _count(inward / DISK),
                ]
            )
    headings = ["events/s, in + out", "size", "producer cores", "the same, librdkafka", "worker cores", "broker cores"]
    headings += ["GB/s into brokers", "GB/s out of them", "links of 10 Gbit/s", "disks of 1 GB/s"]
    return table(headings, rows)


def _count(amount: float) -> str:
    """Return how many are needed when each is loaded to `LOAD`."""
    return f"{math.ceil(amount / LOAD):,}"


BROKER_CORES = 16
"""Of each broker in a plan that is simulated."""


def at_scale(lines: Sequence[Line]) -> str:
    """The plans for the paper's rates, simulated: whether they carry it, what is busy, and how long events take."""
    found = calibrate(lines)
    rows = []
    for bytes_ in SIZES:
        scenario = planned(found, bytes_)
        outcome = simulate(scenario, 0.3, 0.3)
        busy = outcome.busy
        after, handled = outcome.acknowledged_after, outcome.handled_after
        rows.append(
            [
                size(bytes_),
                f"{scenario.producers:,}",
                f"{scenario.consumers * len(scenario.groups):,}",
                f"{scenario.brokers} × {scenario.broker_cores}",
                f"{scenario.partitions:,}",
                number(outcome.produced / 1e6),
                number(outcome.consumed / 1e6),
                f"{100 * busy['client cores']:.0f} %",
                f"{100 * busy['broker cores']:.0f} %",
                f"{100 * max(busy['broker links in'], busy['broker links out']):.0f} %",
                f"{100 * busy['disks']:.0f} %",
                f"{1000 * percentile(after, 0.5):.1f} / {1000 * percentile(after, 0.99):.1f}",
                f"{1000 * percentile(handled, 0.5):.1f} / {1000 * percentile(handled, 0.99):.1f}",
            ]
        )
    headings = ["size", "producers", "workers", "brokers × cores", "partitions", "M produced/s", "M consumed/s"]
    headings += ["clients busy", "broker cores", "broker links", "disks", "acknowledged after, p50 / p99 ms"]
    return table([*headings, "handled after, p50 / p99 ms"], rows)


def planned(found: Costs, bytes_: int) -> Scenario:
    """Return a cluster that is to carry the paper's rates: everything loaded to `LOAD`, by multiplication."""
    client = found.clients["octopus"]
    cores = PRODUCED * append_seconds(found.broker, bytes_, COPIES) + CONSUMED * fetch_seconds(found.broker, bytes_)
    inward, outward = PRODUCED * COPIES * bytes_, (PRODUCED * (COPIES - 1) + CONSUMED) * bytes_
    brokers = math.ceil(max(cores / BROKER_CORES, max(inward, outward) / LINK, inward / DISK, COPIES * LOAD) / LOAD)
    producers = math.ceil(PRODUCED * produce_seconds(client, bytes_) / LOAD)
    groups = (1.0, 1.0, CONSUMED / PRODUCED - 2)
    consumers = math.ceil(CONSUMED * consume_seconds(client, bytes_) / LOAD / sum(groups))
    # Each worker must have several, and each broker as many as the others.
    partitions = math.ceil(2 * consumers / brokers) * brokers
    return Scenario(
        client,
        found.broker,
        event_bytes=bytes_,
        partitions=partitions,
        copies=COPIES,
        brokers=brokers,
        broker_cores=BROKER_CORES,
        producers=producers,
        groups=groups,
        consumers=consumers,
        rate=PRODUCED / producers,
        round_trip=NEAR,
        broker_round_trip=NEAR,
        bandwidth=LINK,
        disk=DISK,
        parcel=batch_of(client, bytes_),
    )


def saturation(lines: Sequence[Line]) -> str:
    """What is busy first, as producers and workers are added to three brokers."""
    found = calibrate(lines)
    rows = []
    for bytes_ in SIZES:
        for clients in (1, 4, 16):
            outcome = simulate(
                Scenario(
                    found.clients["octopus"],
                    found.broker,
                    event_bytes=bytes_,
                    partitions=24,
                    copies=3,
                    brokers=3,
                    broker_cores=4,
                    producers=clients,
                    groups=(1.0,),
                    consumers=clients,
                    round_trip=NEAR,
                    broker_round_trip=NEAR,
                    bandwidth=LINK,
                    disk=DISK,
                ),
                0.5,
            )
            busiest = sorted(outcome.busy.items(), key=lambda one: -one[1])[:2]
            rows.append(
                [
                    size(bytes_),
                    f"{clients} + {clients}",
                    number(outcome.produced),
                    number(outcome.produced * bytes_ / 1e6),
                    number(outcome.consumed),
                    ", ".join(f"{name} {100 * part:.0f} %" for name, part in busiest),
                ]
            )
    return table(("size", "producers + workers", "produced/s", "MB/s", "consumed/s", "busiest"), rows)


def distance(lines: Sequence[Line]) -> str:
    """What one producer and one worker do, by round trip, partitions and size of batch or fetch."""
    found = calibrate(lines)
    client = found.clients["octopus"]
    larger = dataclasses.replace(client, batch_bytes=2**20)
    rows = []
    for milliseconds in (0.5, 10, 60, 150):
        row = [f"{milliseconds:g}"]
        for partitions, one, fetch in ((4, client, 2**20), (4, larger, 8 * 2**20), (40, client, 2**20)):
            producing = Scenario(
                one,
                found.broker,
                event_bytes=1024,
                partitions=partitions,
                copies=3,
                brokers=3,
                broker_cores=4,
                round_trip=milliseconds / 1000,
                broker_round_trip=NEAR,
                bandwidth=LINK,
                fetch_partition_bytes=fetch,
            )
            consuming = dataclasses.replace(producing, producers=0, groups=(1.0,), backlog=True)
            took = 2.0 + 40 * milliseconds / 1000
            produced, consumed = simulate(producing, took), simulate(consuming, took)
            row += [number(produced.produced), number(consumed.consumed)]
        rows.append(row)
    headings = ["round trip, ms"]
    for name in ("4 partitions", "4 partitions, 1 MiB batches, 8 MiB fetches", "40 partitions"):
        headings += [f"{name}: produced/s", "consumed/s"]
    return table(headings, rows)
