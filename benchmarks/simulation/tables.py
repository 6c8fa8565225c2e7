"""The tables of docs/scaling.md, from measured lines."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from benchmarks.simulation.calibration import Costs, Line, calibrate, calibrates, nodes, sweep_of
from benchmarks.simulation.cluster import simulate
from benchmarks.simulation.costs import Broker, Client
from benchmarks.simulation.markdown import error, number, size, table
from benchmarks.simulation.scenario import Outcome, Scenario, percentile

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

BATCH = {"librdkafka": 1000, "octopus": 500}
"""Records of 1 KB or less that a batch holds in a plan."""


# measured


def measured(lines: Sequence[Line]) -> str:
    """The sweep as it was measured."""
    headings = ("client", "size", "acks", "partitions", "copies", "clients")
    headings += ("produced/s", "MB/s", "µs", "brokers' µs", "consumed/s", "MB/s", "µs", "brokers' µs")
    rows = []
    for line in sweep_of(lines):
        figures, options = line["figures"], line["options"]
        row = [options["client"], size(line["value_bytes"]), options["acks"], str(line["partitions"])]
        row += [str(line["copies"]), f"{options['clients']} + {options['clients']}"]
        for way, client in (("produce", "producer"), ("consume", "consumer")):
            row += [number(figures[f"{way}d_per_second"]), number(figures[f"{way}d_mb_per_second"])]
            row += [number(figures[f"{client}_cpu_us"]), number(figures[f"{way}_broker_cpu_us"])]
        rows.append(row)
    return table(headings, rows)


# what one core does


def one_core(lines: Sequence[Line]) -> str:
    """Events a second that one core takes, by size."""
    costs = calibrate(lines)
    kinds: list[tuple[str, Callable[[int], float]]] = []
    for make, client in costs.clients.items():
        kinds.append((f"{make} producer", lambda bytes_, one=client: _produce(one, bytes_)))  # type: ignore[misc]
        kinds.append((f"{make} consumer", lambda bytes_, one=client: _consume(one, bytes_)))  # type: ignore[misc]
    broker = costs.broker
    for copies in (1, 2, 3):
        said = "1 copy" if copies == 1 else f"{copies} copies, of all brokers"
        kinds.append((f"broker takes, {said}", lambda bytes_, n=copies: _append(broker, bytes_, n)))  # type: ignore[misc]
    kinds.append(("broker gives out", lambda bytes_: _fetch(broker, bytes_)))
    rows = []
    for name, seconds in kinds:
        row = [name]
        for bytes_ in SIZES:
            each = seconds(bytes_)
            row += [number(1 / each), number(bytes_ / each / 1e6)]
        rows.append(row)
    return table(["one core of", *(head for one in SIZES for head in (f"{size(one)}, events/s", "MB/s"))], rows)


def costs(lines: Sequence[Line]) -> str:
    """What the calibration found."""
    found = calibrate(lines)
    kinds = [
        *((f"{make} producer", client.produce) for make, client in found.clients.items()),
        *((f"{make} consumer", client.consume) for make, client in found.clients.items()),
        ("broker: append at the leader", found.broker.append),
        ("broker: each further copy", found.broker.copy),
        ("broker: fetch", found.broker.fetch),
    ]
    rows = [
        [name, number(cost.request * 1e6), number(cost.record * 1e6), number(cost.byte * 1e9)] for name, cost in kinds
    ]
    idle = f"A broker with nothing to do takes {100 * found.broker.idle:.1f} % of a core.\n"
    return table(("CPU time of", "µs a request", "µs an event", "ns a byte"), rows) + "\n" + idle


def _batch(client: Client, bytes_: int) -> int:
    """Return how many events of a size a full batch holds, no more than programs hand over at once."""
    return max(1, min(client.batch_records, client.batch_bytes // bytes_, 1000))


def _produce(client: Client, bytes_: int) -> float:
    return client.produce.of(1, bytes_, 1 / _batch(client, bytes_))


def _consume(client: Client, bytes_: int) -> float:
    return client.consume.of(1, bytes_, 1 / max(1, 2**20 // bytes_))


def _append(broker: Broker, bytes_: int, copies: int, batch_bytes: int = 64 * 1024) -> float:
    requests = 1 / max(1, min(1000, batch_bytes // bytes_))
    return broker.append.of(1, bytes_, requests) + (copies - 1) * broker.copy.of(1, bytes_, requests)


def _fetch(broker: Broker, bytes_: int) -> float:
    return broker.fetch.of(1, bytes_, 1 / max(1, 2**20 // bytes_))


# the check


def check(lines: Sequence[Line]) -> str:
    """Measured points that the calibration did not see, beside what the simulation says."""
    found = calibrate(lines)
    rows = []
    for line in sweep_of(lines):
        if calibrates(line):
            continue
        options, figures = line["options"], line["figures"]
        name = (
            f"{options['client']}, {size(line['value_bytes'])}, acks={options['acks']}, {line['partitions']} partitions"
        )
        name += f", {line['copies']} {'copy' if line['copies'] == 1 else 'copies'}, {options['clients']} + {options['clients']}"
        produced, consumed = _as_measured(line, found)
        for what, simulated, real in (
            ("produced/s", produced.produced, figures["produced_per_second"]),
            ("consumed/s", consumed.consumed, figures["consumed_per_second"]),
            (
                "events a produce request",
                _per(produced.produced, produced.produce_requests),
                figures["records_per_produce"],
            ),
            ("brokers' µs a produced event", _broker_us(produced, produced.produced), figures["produce_broker_cpu_us"]),
            ("brokers' µs a consumed event", _broker_us(consumed, consumed.consumed), figures["consume_broker_cpu_us"]),
        ):
            rows.append([name, what, number(real), number(simulated), error(simulated, real)])
    return table(("point", "figure", "measured", "simulated", "off by"), rows)


def _as_measured(line: Line, found: Costs) -> tuple[Outcome, Outcome]:
    """Simulate a point of the sweep on the machine it was measured on: one core for brokers, one for clients."""
    options = line["options"]
    common = {
        "event_bytes": line["value_bytes"],
        "partitions": line["partitions"],
        "copies": line["copies"],
        "acks": options["acks"],
        "brokers": nodes(line),
        "broker_cores": len(line["broker_cores"].split(",")),
        "one_machine": True,
        "client_cores": len(line["client_cores"].split(",")),
        "round_trip": line["round_trip_ms"] / 1000,
    }
    client = found.clients[options["client"]]
    if "batch_bytes" in options:
        client = dataclasses.replace(client, batch_bytes=options["batch_bytes"])
    # Our consumers read the whole topic each, in groups of their own; librdkafka's share it.
    apart = options["client"] == "octopus"
    groups = (1.0,) * (options["clients"] if apart else 1)
    produced = simulate(
        Scenario(client, found.broker, producers=options["clients"], **common, **_taken(line, "produce")), 2.0
    )
    consumed = simulate(
        Scenario(
            client,
            found.broker,
            producers=0,
            groups=groups,
            consumers=1 if apart else options["clients"],
            backlog=True,
            **common,
            **_taken(line, "consume"),
        ),
        2.0,
    )
    return produced, consumed


def _taken(line: Line, way: str) -> dict[str, float]:
    """Return the part of the cores that other programs used while a point was measured."""
    return {f"{whose}_cores_taken": line["figures"][f"{way}_{whose}_cores_taken"] for whose in ("broker", "client")}


def _per(one: float, other: float) -> float:
    return one / other if other else math.nan


def _broker_us(outcome: Outcome, rate: float) -> float:
    return 1e6 * _per(outcome.busy["broker cores"], rate)


# plans


def plan(lines: Sequence[Line]) -> str:
    """How many of everything the paper's rates take, and ten times as much: multiplication."""
    found = calibrate(lines)
    rows = []
    for factor in (1, 10):
        for bytes_ in SIZES:
            produced, consumed = PRODUCED * factor, CONSUMED * factor
            ours, theirs = found.clients["octopus"], found.clients["librdkafka"]
            cores = produced * _append(found.broker, bytes_, COPIES) + consumed * _fetch(found.broker, bytes_)
            inward, outward = produced * COPIES * bytes_, (produced * (COPIES - 1) + consumed) * bytes_
            rows.append(
                [
                    f"{produced / 1e6:g} M + {consumed / 1e6:g} M",
                    size(bytes_),
                    _count(produced * _produce(ours, bytes_)),
                    _count(produced * _produce(theirs, bytes_)),
                    _count(consumed * _consume(ours, bytes_)),
                    _count(cores),
                    number(inward / 1e9),
                    number(outward / 1e9),
                    _count(max(inward, outward) / LINK),
                    _count(inward / DISK),
                ]
            )
    headings = ("events/s, in + out", "size", "producer cores", "the same, librdkafka", "worker cores", "broker cores")
    headings += ("GB/s into brokers", "GB/s out of them", "links of 10 Gbit/s", "disks of 1 GB/s")
    return table(headings, rows)


def _count(amount: float) -> str:
    """Return how many are needed when each is loaded to `LOAD`."""
    return f"{math.ceil(amount / LOAD):,}"


BROKER_CORES = 16


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
    headings = ("size", "producers", "workers", "brokers × cores", "partitions", "M produced/s", "M consumed/s")
    headings += ("clients busy", "broker cores", "broker links", "disks", "acknowledged after, p50 / p99 ms")
    return table((*headings, "handled after, p50 / p99 ms"), rows)


def planned(found: Costs, bytes_: int) -> Scenario:
    """Return a cluster that is to carry the paper's rates: everything loaded to `LOAD`, by multiplication."""
    client = found.clients["octopus"]
    cores = PRODUCED * _append(found.broker, bytes_, COPIES) + CONSUMED * _fetch(found.broker, bytes_)
    inward, outward = PRODUCED * COPIES * bytes_, (PRODUCED * (COPIES - 1) + CONSUMED) * bytes_
    brokers = math.ceil(max(cores / BROKER_CORES, max(inward, outward) / LINK, inward / DISK, COPIES * LOAD) / LOAD)
    producers = math.ceil(PRODUCED * _produce(client, bytes_) / LOAD)
    groups = (1.0, 1.0, CONSUMED / PRODUCED - 2)
    consumers = math.ceil(CONSUMED * _consume(client, bytes_) / LOAD / sum(groups))
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
        parcel=_batch(client, bytes_),
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
            common = {
                "event_bytes": 1024,
                "partitions": partitions,
                "copies": 3,
                "brokers": 3,
                "broker_cores": 4,
                "round_trip": milliseconds / 1000,
                "broker_round_trip": NEAR,
                "bandwidth": LINK,
                "fetch_partition_bytes": fetch,
            }
            took = 2.0 + 40 * milliseconds / 1000
            produced = simulate(Scenario(one, found.broker, **common), took)
            consumed = simulate(Scenario(one, found.broker, producers=0, groups=(1.0,), backlog=True, **common), took)
            row += [number(produced.produced), number(consumed.consumed)]
        rows.append(row)
    headings = ["round trip, ms"]
    for name in ("4 partitions", "4 partitions, 1 MiB batches, 8 MiB fetches", "40 partitions"):
        headings += [f"{name}: produced/s", "consumed/s"]
    return table(headings, rows)


TABLES: dict[str, Callable[[Sequence[Line]], str]] = {
    "measured": measured,
    "costs": costs,
    "one core": one_core,
    "check": check,
    "plan": plan,
    "at scale": at_scale,
    "saturation": saturation,
    "distance": distance,
}
"""By the names that docs/scaling.md puts around them."""
