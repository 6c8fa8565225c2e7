"""Retries with a long wait: written to a topic of their own, settled, and read back from there when they are due.

What waits there carries the original key, value bytes and headers, and behind them headers of its own:

    octopus-retry-due         milliseconds since the epoch: not before
    octopus-retry-attempt     of the run to come, from 1
    octopus-retry-handler     `<app>.<handler>`
    octopus-retry-topic       where it was first
    octopus-retry-partition
    octopus-retry-offset
    octopus-retry-timestamp   milliseconds since the epoch, of the original
"""

import math
from collections.abc import Callable
from functools import partial

from octopus.errors import TransportError
from octopus.events import DeferredRecord, Record, StoredRecord
from octopus.logs import get_logger
from octopus.outcomes import Deferred, Outcome, Retry
from octopus.patience import Patience
from octopus.routing import RETRY_SUFFIX
from octopus.transports.base import Outgoing, Producer

logger = get_logger("octopus.handlers")

PREFIX = "octopus-retry-"
SUFFIX = RETRY_SUFFIX
NAMES = ("due", "attempt", "handler", "topic", "partition", "offset", "timestamp")

END_OF_TIME = 253_402_300_799.0
"""Seconds since the epoch, the last of the year 9999: when it is that a retry is due that waits for ever."""

Clock = Callable[[], float]
"""Seconds since the epoch."""


def read_deferred(stored: StoredRecord) -> DeferredRecord:
    """Understand a record of a retry topic.

    Raises:
        ValueError: It does not end with the headers that a deferred record has.
    """
    headers = stored.headers
    own = headers[-len(NAMES) :]
    if tuple(name for name, _ in own) != tuple(PREFIX + name for name in NAMES):
        raise ValueError("it does not end with the headers of one")
    due, attempt, handler, topic, partition, offset, timestamp = [(value or b"").decode() for _, value in own]
    return DeferredRecord(
        topic,
        int(partition),
        int(offset),
        int(timestamp),
        stored.key,
        stored.value,
        tuple(headers[: -len(NAMES)]),
        settles_at=stored.offset,
        due=int(due) / 1000,
        next_attempt=int(attempt),
        handler=handler,
    )


class RetryTopic:
    """Where the retries of one handler wait.

    Args:
        producer: Writes them.
        handler: `<app>.<handler>`.
        name: The topic.
        clock: The wall clock: due times must mean the same after a restart, and elsewhere.
    """

    def __init__(self, producer: Producer, handler: str, name: str, clock: Clock) -> None:
        self.name = name
        self.handler = handler
        self.clock = clock
        self._producer = producer
        self._patience = Patience(logger, handler, f"retries in {name!r}")

    async def defer(self, record: Record, retry: Retry, attempt: int) -> Outcome:
        """Write a record whose attempt has failed, due after the wait. A broker that is away is waited for.

        A broker that refuses it for good costs nothing but what the topic is for: it waits in its lane.
        """
        due = min(self.clock() + max(0.0, retry.after), END_OF_TIME)
        message = self._message(record, math.ceil(due * 1000), attempt + retry.counted)
        try:
            await self._patience.until_sent(partial(self._producer.send, message))
        except TransportError as error:
            logger.error(  # noqa: TRY400 - a sentence says it all
                "%s cannot write the retry of %s to %r, so it holds its lane: %s",
                self.handler,
                record.coordinates,
                self.name,
                error,
            )
            return retry
        return Deferred(retry)

    async def move(self, record: Record, retry: Retry, attempt: int) -> Outcome:
        """Write a record anew that is in the topic already; `attempt` is the one to come. If it fails, it stays."""
        assert isinstance(record, DeferredRecord)
        try:
            await self._producer.send(self._message(record, round(record.due * 1000), attempt))
        except TransportError as error:
            self._patience.failed(error)  # it stays where it is, until its turn comes again
            return retry
        self._patience.succeeded()
        return Deferred(retry)

    def _message(self, record: Record, due_milliseconds: int, attempt: int) -> Outgoing:
        values = (
            str(due_milliseconds),
            str(attempt),
            self.handler,
            record.topic,
            str(record.partition),
            str(record.offset),
            str(record.timestamp),
        )
        own = [(PREFIX + name, value.encode()) for name, value in zip(NAMES, values, strict=True)]
        return Outgoing(self.name, record.value, record.key, [*record.headers, *own], source=record.topic)


__all__ = ["Clock", "RetryTopic", "read_deferred"]
