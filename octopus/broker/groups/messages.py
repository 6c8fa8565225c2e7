"""A group coordinator's requests and answers; the states of a member and a group. Values only."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from octopus.broker.codes import Code


class State(StrEnum):
    """A group's state, spelled as DescribeGroups answers it."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class Protocol(NamedTuple):
    """One assignment protocol a member can follow, with its subscription in that protocol's own encoding."""

    name: str
    metadata: bytes


class Join(NamedTuple):
    """A JoinGroup request.

    Attributes:
        member: The member id the client knows itself by; empty for a newcomer.
        instance: The static membership name, or None for a dynamic member.
        fresh: An unused member id, taken if the machine has to give one out.
        kind: The protocol type ("consumer").
        asks_back: Whether a dynamic newcomer is first told its id and must come again with it (version 4 and later).
    """

    member: str
    instance: str | None
    fresh: str
    client: str
    host: str
    session_timeout: int
    rebalance_timeout: int
    kind: str
    protocols: tuple[Protocol, ...]
    asks_back: bool


class Peer(NamedTuple):
    """The leader's view of each member."""

    member: str
    instance: str | None
    metadata: bytes


class Joined(NamedTuple):
    """The answer to JoinGroup; only the leader gets `peers`."""

    code: Code
    member: str
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    peers: tuple[Peer, ...] = ()


class Synced(NamedTuple):
    """The answer to SyncGroup."""

    code: Code
    assignment: bytes = b""


class Reply(NamedTuple):
    """An answer for the request that handed in this ticket."""

    ticket: object
    answer: Joined | Synced


@dataclass(slots=True)
class Member:
    """One member. `expires` does not count while a request of it is waiting: then the client cannot heartbeat."""

    id: str
    instance: str | None
    client: str
    host: str
    session_timeout: int
    rebalance_timeout: int
    protocols: tuple[Protocol, ...]
    expires: int
    assignment: bytes = b""
    joining: object | None = None
    syncing: object | None = None

    @property
    def is_waiting(self) -> bool:
        return self.joining is not None or self.syncing is not None

    def metadata(self, protocol: str) -> bytes:
        return next((each.metadata for each in self.protocols if each.name == protocol), b"")
