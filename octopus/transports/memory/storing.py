"""What a producer does whose broker stores a message while it is queued: every answer is there at once."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

from octopus.events import Published
from octopus.transports.base import Outgoing
from octopus.transports.queueing import Queued, answered, first_of


class StoringProducer(ABC):
    """Publishes by storing, and no more: nothing is ever on its way. Its subclass says where."""

    @abstractmethod
    def store(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Store messages in order.

        Raises:
            TransportError: One cannot be stored; says which of the others were.
        """

    async def send(self, message: Outgoing) -> Published:
        """Store one message."""
        return self.store((message,))[0]

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Store messages in order."""
        return self.store(messages)

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Store messages in order; the future has the answer already."""
        return answered(lambda: self.store(messages))

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Store one message, as `queue`."""
        return first_of(self.queue((message,)))

    @property
    def queued_bytes(self) -> int:
        """Nothing: what is queued is stored."""
        return 0
