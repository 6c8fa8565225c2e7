"""The tables of docs/scaling.md, from measured lines."""

from collections.abc import Callable, Sequence

from benchmarks.markdown import number, size, table
from benchmarks.simulation.calibration import Line, calibrate, sweep_of
from benchmarks.simulation.checks import batches_of, check, latency
from benchmarks.simulation.plans import SIZES, at_scale, distance, plan, saturation
from benchmarks.simulation.shares import append_seconds, consume_seconds, fetch_seconds, produce_seconds


def measured(lines: Sequence[Line]) -> str:
    """The sweep as it was measured, without a link in between."""
    headings = ["client", "size", "acks", "partitions", "copies", "clients"]
    headings += ["produced/s", "MB/s", "µs", "brokers' µs", "p50 / p99 ms", "consumed/s", "MB/s", "µs", "brokers' µs"]
    rows = []
    for line in sweep_of(lines):
        if line["round_trip_ms"]:
            continue
        figures, options = line["figures"], line["options"]
        row = [
            options["client"] + batches_of(line),
            size(line["value_bytes"]),
            options["acks"],
            str(line["partitions"]),
        ]
        row += [str(line["copies"]), f"{options['clients']} + {options['clients']}"]
        for way, client in (("produce", "producer"), ("consume", "consumer")):
            row += [number(figures[f"{way}d_per_second"]), number(figures[f"{way}d_mb_per_second"])]
            row += [number(figures[f"{client}_cpu_us"]), number(figures[f"{way}_broker_cpu_us"])]
            if way == "produce":
                row.append(f"{number(figures['p50_ms'])} / {number(figures['p99_ms'])}")
        rows.append(row)
    return table(headings, rows)


def one_core(lines: Sequence[Line]) -> str:
    """Events a second that one core takes, by size."""
    costs = calibrate(lines)
    kinds: list[tuple[str, Callable[[int], float]]] = []
    for make, client in costs.clients.items():
        kinds.append((f"{make} producer", lambda bytes_, one=client: produce_seconds(one, bytes_)))  # type: ignore[misc]
        kinds.append((f"{make} consumer", lambda bytes_, one=client: consume_seconds(one, bytes_)))  # type: ignore[misc]
    broker = costs.broker
    for copies in (1, 2, 3):
        said = "1 copy" if copies == 1 else f"{copies} copies, of all brokers"
        kinds.append((f"broker takes, {said}", lambda bytes_, n=copies: append_seconds(broker, bytes_, n)))  # type: ignore[misc]
    kinds.append(("broker gives out", lambda bytes_: fetch_seconds(broker, bytes_)))
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


TABLES: dict[str, Callable[[Sequence[Line]], str]] = {
    "measured": measured,
    "costs": costs,
    "one core": one_core,
    "check": check,
    "latency": latency,
    "plan": plan,
    "at scale": at_scale,
    "saturation": saturation,
    "distance": distance,
}
"""By the names that docs/scaling.md puts around them."""
