"""A client id that carries what all connections of a client know: aiokafka hands it, and nothing else of the client, to each."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Self
from weakref import WeakSet

from octopus.transports.kafka.greeting import Greeting
from octopus.transports.kafka.outage import Outage

Locate = Callable[[], Awaitable[str]]


class ClientName(str):
    """A client id that remembers why the client's last connection attempt failed.

    Attributes:
        failure: That reason, None once connected.
        throttled_at: When it was last said that a broker throttles, in loop time.
        create_topics: Whether asking for the metadata of a topic may create it.
        locate: Returns where the only broker is now; None where brokers stay put.
        greeting: What the clients of a cluster know of its first answer.
        opened: Connections that were opened for the client and may still be open.
        is_closed: Whether the client was closed: it opens no connection any more.
        outage: Is told whether brokers answer; None where others ask them.
    """

    __slots__ = ("create_topics", "failure", "greeting", "is_closed", "locate", "opened", "outage", "throttled_at")

    create_topics: bool
    greeting: Greeting
    is_closed: bool
    opened: "WeakSet[Any]"
    outage: Outage | None
    failure: BaseException | None
    locate: Locate | None
    throttled_at: float

    def __new__(
        cls,
        name: str,
        *,
        create_topics: bool = False,
        locate: Locate | None = None,
        greeting: Greeting | None = None,
    ) -> Self:
        made = super().__new__(cls, name)
        made.greeting = greeting or Greeting()
        made.create_topics = create_topics
        made.failure = None
        made.locate = locate
        made.throttled_at = -math.inf
        made.opened = WeakSet()
        made.is_closed = False
        made.outage = None
        return made

    @classmethod
    def of(cls, client: Any) -> Self:
        """Return the name of a client of ours."""
        name: Self = client.name
        return name
