"""One request as its handler sees it, and the state of its connection."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from octopus.broker.codes import BrokerError
from octopus.broker.counters import Counters
from octopus.broker.node import Node
from octopus.broker.wire import Reader, Writer

Answer = Writer | None | Coroutine[Any, Any, Writer | None]
"""A handler's result: the body, nothing (no answer is due), or a coroutine that returns one of these."""

Handler = Callable[[Node, "Request"], Answer]


class Hangup(Exception):
    """Close this connection; the protocol has no better answer."""


@dataclass(slots=True)
class Session:
    """The state of a connection.

    Attributes:
        peer: The client's address, for DescribeGroups.
        host: The host under which this client reaches the broker.
        port: The port under which this client reaches the broker.
        is_authenticated: Whether everything may be asked.
        mechanism: The SASL mechanism agreed on, until the exchange is over.
        speaks_raw: After a version 0 handshake: the next frame is the bare token, without a Kafka header.
        is_closing: Set by a handler: close once its answer is written.
        turn: Held by the Produce request that is being looked at, so that none overtakes it while that takes time.
    """

    peer: str
    host: str
    port: int
    is_authenticated: bool
    mechanism: str | None = None
    speaks_raw: bool = False
    is_closing: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Request:
    """A request header, and a reader at the start of the body.

    Attributes:
        fault: Error code that a test ordered for this request, or 0.
    """

    api: "Api"
    version: int
    client_id: str
    reader: Reader
    session: Session
    counters: Counters
    fault: int = 0

    def answer(self) -> Writer:
        """Return a writer of this version's encoding."""
        return Writer(self.version >= self.api.flexible_from)

    def check(self) -> None:
        """Raise the fault ordered for this request, where its answer has room for an error code.

        Raises:
            BrokerError: The fault.
        """
        if self.fault:
            raise BrokerError(self.fault, "ordered by a test")

    def refuse(self, error: BrokerError) -> int:
        """Count a refusal and return its code."""
        self.counters.errors[f"{self.api.name} {error.code}"] += 1
        return error.code


class Api(NamedTuple):
    """A row of the table of APIs.

    Attributes:
        least: Lowest version advertised.
        most: Highest version advertised.
        flexible_from: First version in the flexible encoding.
        serves_from: Lowest version served, where an older one is advertised only to be believed (Produce).
        may_overlap: Whether the next such request of a connection may start before this one is answered.
        waits_only: Whether the coroutine changes nothing after its first step, so that a lost connection may cancel it.
        before_login: Whether it is served to a client that is not authenticated yet.
    """

    key: int
    name: str
    least: int
    most: int
    handle: Handler
    flexible_from: int = 1 << 15
    serves_from: int = 0
    may_overlap: bool = False
    waits_only: bool = False
    before_login: bool = False
