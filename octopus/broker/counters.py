"""Counts of a broker's work so far."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Running totals since the start; `connections_open` and `bytes_in_flight` go up and down.

    Attributes:
        connections_spared: Idle ones that were closed to make room for others.
        requests: By API name.
        errors: Error codes answered, by API name and code (`"Fetch 1"`), and connections closed for a fault of ours or theirs.
    """

    connections_open: int = 0
    connections_total: int = 0
    connections_refused: int = 0
    connections_spared: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_in_flight: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """Return the totals as plain values."""
        return {
            "connections_open": self.connections_open,
            "connections_total": self.connections_total,
            "connections_refused": self.connections_refused,
            "connections_spared": self.connections_spared,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "bytes_in_flight": self.bytes_in_flight,
            "requests": dict(self.requests),
            "errors": dict(self.errors),
        }
