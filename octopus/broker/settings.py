"""A broker's address and defaults, and how its data is kept."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from octopus.broker.limits import Limits
from octopus.errors import ConfigurationError

TokenValidator = Callable[[str], Awaitable[str]]
"""Takes a bearer token and returns the principal's name; raises any exception to refuse it."""


@dataclass(frozen=True)
class StorageSettings:
    """How a data directory is kept.

    Attributes:
        durability: `"fsync"`: acknowledged records survive power loss; `"os"`: they survive the process only.
        topic_defaults: Topic configuration (Kafka's names) that applies where a topic sets none.
        offsets_retention_ms: How long an inactive group's offsets are kept.
        producer_expiry_ms: How long the sequence numbers of a silent producer are remembered.
        max_topics: Most topics.
        max_partitions: Most partitions in all.
    """

    durability: Literal["fsync", "os"] = "fsync"
    topic_defaults: Mapping[str, str] = field(default_factory=dict)
    offsets_retention_ms: int = 7 * 24 * 3600 * 1000
    producer_expiry_ms: int = 24 * 3600 * 1000
    max_topics: int = 1000
    max_partitions: int = 10_000


@dataclass(frozen=True)
class BrokerSettings:
    """Settings of a broker.

    Attributes:
        host: Address to listen on. Anything but loopback needs `passwords` or `validate_token`.
        port: Port to listen on; 0 takes a free one.
        advertised_host: Host that Metadata names; by default the address each client connected to.
        advertised_port: Port that Metadata names; by default the bound one.
        auto_create: Whether asking for an unknown topic's metadata may create it.
        default_partitions: Partitions of a topic that does not say.
        join_window_ms: How long the first rebalance of an empty group waits for further members.
        maintenance_interval: Seconds between rounds of retention, compaction and expiry.
        passwords: Name → password for SASL PLAIN.
        validate_token: Judge of SASL OAUTHBEARER tokens.
        limits: Caps on what clients may use.
    """

    host: str = "127.0.0.1"
    port: int = 0
    advertised_host: str | None = None
    advertised_port: int | None = None
    auto_create: bool = True
    default_partitions: int = 1
    join_window_ms: int = 50
    maintenance_interval: float = 30.0
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    validate_token: TokenValidator | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not (self.needs_authentication or _is_loopback(self.host)):
            raise ConfigurationError(
                f"the broker would listen on {self.host!r}, which others can reach, without authentication: "
                "set passwords or a token validator, or listen on 127.0.0.1."
            )

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms on offer."""
        plain = ("PLAIN",) if self.passwords else ()
        return (*plain, "OAUTHBEARER") if self.validate_token is not None else plain

    @property
    def needs_authentication(self) -> bool:
        """Whether clients must authenticate before anything else."""
        return bool(self.mechanisms)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
