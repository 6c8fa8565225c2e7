"""What the figures are called, in which order they are shown, and how."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Figure:
    """A column.

    Attributes:
        heading: Of the column.
        digits: Behind the point.
        more_is_better: Which way a ratio is good.
    """

    heading: str
    digits: int = 0
    more_is_better: bool = True


FIGURES: dict[str, Figure] = {
    "records_per_second": Figure("records/s"),
    "wall_us": Figure("µs wall", 2, False),
    "cpu_us": Figure("µs CPU", 2, False),
    "p50_ms": Figure("p50 ms", 2, False),
    "p99_ms": Figure("p99 ms", 2, False),
    "p999_ms": Figure("p99.9 ms", 2, False),
    "offered_per_second": Figure("offered/s"),
    "handled_per_second": Figure("handled/s"),
    "nanoseconds": Figure("ns", 0, False),
    "milliseconds": Figure("ms", 1, False),
    "seconds_to_first": Figure("s to first", 3, False),
    "pause_ms": Figure("pause ms", 0, False),
    "stayed_pause_ms": Figure("stayed ms", 0, False),
    "duplicates": Figure("again", 0, False),
    "grown_mb": Figure("grown MB", 1, False),
    "memory_mb": Figure("memory MB", 0, False),
    "broker_cpu_us": Figure("µs CPU of broker", 2, False),
    "broker_memory_mb": Figure("broker MB", 0, False),
    "recovery_s_per_gb": Figure("s/GB", 2, False),
    "megabytes": Figure("log MB"),
    "produced_per_second": Figure("produced/s"),
    "produced_mb_per_second": Figure("MB/s", 1),
    "producer_cpu_us": Figure("µs CPU", 2, False),
    "produce_broker_cpu_us": Figure("of brokers", 2, False),
    "consumed_per_second": Figure("consumed/s"),
    "consumed_mb_per_second": Figure("MB/s", 1),
    "consumer_cpu_us": Figure("µs CPU", 2, False),
    "consume_broker_cpu_us": Figure("of brokers", 2, False),
    "produce_p99_ms": Figure("produce p99 ms", 2, False),
    "produce_p99_ratio": Figure("to alone", 2, False),
    "fetch_p99_ms": Figure("fetch p99 ms", 2, False),
    "fetch_p99_ratio": Figure("to alone", 2, False),
    "broker_idle_percent": Figure("% of a core", 1, False),
}
