"""Groups whose outputs stay on their way until the test says what becomes of them."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from octopus import Octopus, config
from octopus.errors import ConnectionFailed, RecordTooLarge, TransportError
from octopus.events import Published, Record, TopicPartition
from octopus.pipeline.attempts import AssignedOutputs
from octopus.pipeline.in_flight import OutputsInFlight
from octopus.publishing import Publisher
from octopus.runner import Assignment, Runner
from octopus.transports.base import Outgoing
from octopus.transports.queueing import first_of, size_of
from octopus.types import RunClaim
from octopus.unacknowledged import Unacknowledged
from tests.staged import P0, record, turns


class HeldProducer:
    """Keeps publications until the test lets them go.

    Attributes:
        queued: What was queued, and the future of each publication; in order, the finished ones too.
        stored: Messages, in the order in which they were stored.
        sent: What was sent the other way and acknowledged at once: dead letters.
    """

    def __init__(self) -> None:
        self.queued: list[tuple[Sequence[Outgoing], asyncio.Future[list[Published]]]] = []
        self.stored: list[Outgoing] = []
        self.sent: list[Outgoing] = []

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    @property
    def queued_bytes(self) -> int:
        return 0

    def queue(self, messages: Sequence[Outgoing]) -> "asyncio.Future[list[Published]]":
        size_of(messages)  # as every producer looks at what it gets
        future: asyncio.Future[list[Published]] = asyncio.get_running_loop().create_future()
        self.queued.append((messages, future))
        return future

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        return first_of(self.queue((message,)))

    async def send(self, message: Outgoing) -> Published:
        self.sent.append(message)
        return Published(message.topic, 0, len(self.sent))

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        return [await self.send(message) for message in messages]

    @property
    def airborne(self) -> list[list[Any]]:
        """The values of each publication on its way."""
        return [values(messages) for messages, future in self.queued if not future.done()]

    @property
    def outputs(self) -> list[Any]:
        """The values of all of them."""
        return [value for publication in self.airborne for value in publication]

    async def store(self, count: int = 1) -> None:
        """Acknowledge the next publications."""
        for messages, future in [each for each in self.queued if not each[1].done()][:count]:
            self.stored += messages
            future.set_result([Published(each.topic, 0, at) for at, each in enumerate(messages)])
        await turns()

    async def fail(self, error: TransportError, *failed: Any) -> None:
        """Fail the next publication, or only these values of it."""
        messages, future = next(each for each in self.queued if not each[1].done())
        published: list[Published | None] = []
        for at, (message, value) in enumerate(zip(messages, values(messages), strict=True)):
            if failed and value not in failed:
                self.stored.append(message)
                published.append(Published(message.topic, 0, at))
            else:
                published.append(None)
        error.published = published
        future.set_exception(error)
        if error.retryable:  # nothing that is behind it may be stored before it
            for _, behind in self.queued:
                if not behind.done():
                    behind.set_exception(ConnectionFailed(str(error)))
        await turns()


def values(messages: Sequence[Outgoing]) -> list[Any]:
    """Return what was encoded."""
    return [msgspec.json.decode(message.value or b"null") for message in messages]


class Aloft:
    """One group of an app on a producer that holds everything back.

    Args:
        app: Its first group is run.
        limit: Bytes on their way beyond which handlers wait.
        reschedule: As of the runner.
    """

    def __init__(self, app: Octopus, *, limit: int = 1 << 20, reschedule: bool = True) -> None:
        self.producer = HeldProducer()
        self._life = app._publishers.of_driver(Publisher(self.producer))
        self._life.__enter__()
        self.pipeline = app.pipelines(self.producer, config.load({}))[0]
        self.outputs: OutputsInFlight = self.pipeline.outputs_in_flight(limit)
        self.runner = Runner(
            self,
            ordering=self.pipeline.ordering,
            concurrency=self.pipeline.concurrency,
            batch=self.pipeline.batch,
            within=self.pipeline.within,
            reschedule=reschedule,
            publications=self.outputs.publications,
        )

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        return self.pipeline.bind(partition, outputs=AssignedOutputs(self.outputs, unacknowledged))

    async def begin(self, *given: Any, partition: TopicPartition = P0, keys: Sequence[bytes | None] = ()) -> Assignment:
        """Open a partition, submit records and let what can happen."""
        assignment = self.runner.open(partition, 0)
        await self.submit(assignment, *given, keys=keys)
        return assignment

    async def submit(self, assignment: Assignment, *given: Any, keys: Sequence[bytes | None] = ()) -> None:
        first = assignment.ledger.position
        records: list[Record] = [
            record(
                first + at,
                value=msgspec.json.encode(value),
                key=keys[at] if keys else None,
                partition=assignment.partition,
            )
            for at, value in enumerate(given)
        ]
        self.runner.submit(assignment, records, first + len(records), sum(len(each.value or b"") for each in records))
        await turns()

    async def settle(self, *refused: Any) -> None:
        """Store everything that goes out from now on, for a minute, but for these values, which are refused for good."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while True:
                    if not self.producer.airborne:
                        await asyncio.sleep(0.1)
                    elif bad := [value for value in self.producer.airborne[0] if value in refused]:
                        await self.producer.fail(RecordTooLarge("large"), *bad)
                    else:
                        await self.producer.store()

    async def close(self) -> None:
        await self.runner.close()
        await self.outputs.close()
        self._life.__exit__(None, None, None)


Make = Callable[..., Aloft]
