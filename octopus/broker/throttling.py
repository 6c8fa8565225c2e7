"""Throttling as Kafka does it (KIP-219): an answer says how long to wait, and its connection is not read meanwhile.

A Fetch that is over the quota of bytes is answered at once and empty; everything else is carried out first.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final, Literal

from octopus.broker.wire import Writer

Resource = Literal["produce", "fetch", "request"]
"""Bytes of Produce requests, bytes of Fetch answers, requests of any kind."""

PRODUCE, FETCH, API_VERSIONS, OFFSET_DELETE = 0, 1, 18, 47

_SAID_FROM: Final = {
    PRODUCE: 1, FETCH: 1, 2: 2, 3: 3, 8: 3, 9: 3, 10: 1, 11: 2, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1, API_VERSIONS: 1, 19: 2,
    20: 1, 21: 0, 22: 0, 23: 2, 24: 0, 25: 0, 26: 0, 28: 0, 32: 0, 33: 0, 35: 0, 37: 0, 42: 0, 44: 0, OFFSET_DELETE: 0,
    61: 0, 65: 0, 66: 0, 75: 0,
}  # fmt: skip
"""API key → the version from which its answers say how long to wait: in their first field, but for `_SAID_AT`."""

_SAID_AT: Final = {PRODUCE: -4, API_VERSIONS: -4, OFFSET_DELETE: 2}
"""API key → where its answers say it: bytes from the beginning, or, if negative, from the end."""


def say(body: Writer, api_key: int, version: int, seconds: float) -> None:
    """Write into an answer how long its client is to wait; some answers have no place for it."""
    if version >= _SAID_FROM.get(api_key, 1 << 15):
        body.overwrite_int32(round(seconds * 1000), _SAID_AT.get(api_key, 0))


@dataclass
class Quotas:
    """The use of each resource by every client id; nothing is limited until a quota is set.

    Use beyond the quota is a debt, to be waited for. A second's worth may be saved up.

    Attributes:
        rates: Bytes or requests per second.
    """

    rates: dict[Resource, float] = field(default_factory=dict)
    _even_at: defaultdict[tuple[Resource, str], float] = field(default_factory=lambda: defaultdict(float))

    def charge(self, resource: Resource, client_id: str, amount: int, now: float) -> None:
        """Count a client's use."""
        if rate := self.rates.get(resource):
            key = resource, client_id
            self._even_at[key] = max(self._even_at[key], now - 1.0) + amount / rate

    def debt(self, resource: Resource, client_id: str, now: float) -> float:
        """Return the seconds that a client has to wait."""
        return max(0.0, self._even_at[resource, client_id] - now) if resource in self.rates else 0.0
