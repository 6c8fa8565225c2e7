"""A transport that records its traffic: records polled, messages of transactions, commits, assignments."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import msgspec

from octopus.events import Published, TopicPartition
from octopus.testing.history import Committing, Ended, Note, Offered, Polled, Stored
from octopus.transports.base import (
    MAX_BYTES,
    AssignmentListener,
    Chunk,
    Commit,
    Consumer,
    Fetched,
    Outgoing,
    Producer,
    TransactionalProducer,
    Transport,
)
from octopus.transports.queueing import Call, CallProducer
from tests.faults.journal import Journal, now

ID = re.compile(rb'"id": ?"([^"]*)"')

WRITE = "trial-write"
"""Header with the id of what a handler publishes: two attempts publish the same, and are told apart by it."""


def id_of(value: bytes | None) -> str:
    """Return the id in a value, also in one that is not JSON."""
    found = ID.search(value or b"")
    return found[1].decode() if found else "?"


class RecordingTransport:
    """Passes every call to a transport, and records what its consumers and producers do.

    Args:
        transport: The one that does the work.
        journal: Gets the records.
        worker: Its name.
        published: Topics of which it records what is published to them outside of transactions.
    """

    def __init__(self, transport: Transport, journal: Journal, worker: str, published: Collection[str] = ()) -> None:
        self._published = published
        self._transport = transport
        self._journal = journal
        self._worker = worker
        self._consumers = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def consumer(self, group: str, topics: Any, **options: Any) -> Consumer:
        self._consumers += 1
        consumer = self._transport.consumer(group, topics, **options)
        if group.endswith((".renew", ".renew.retry")):
            return consumer  # of a topic that is made again: its offsets mean something else each time
        self._latest = RecordingConsumer(consumer, self._journal, self._worker, group, self._consumers)
        return self._latest

    def producer(self, **options: Any) -> Producer:
        producer = self._transport.producer(**options)
        if not self._published:
            return producer
        return RecordingPublisher(producer, self._journal, self._worker, self._published)  # type: ignore[return-value]

    def transactional_producer(self, transactional_id: str, **options: Any) -> TransactionalProducer:
        producer = self._transport.transactional_producer(transactional_id, **options)
        return RecordingProducer(producer, self._journal, f"{transactional_id}#{self._worker}")

    def kill_fetch_task(self) -> None:
        """Cancel the client's fetch task, as a defect of the client library would end it. From any thread."""
        task = self._latest.engine._fetcher._fetch_task
        task.get_loop().call_soon_threadsafe(task.cancel)
        self._latest.note("fetch task dies")


class RecordingConsumer:
    def __init__(self, consumer: Consumer, journal: Journal, worker: str, group: str, number: int) -> None:
        self._consumer = consumer
        self._journal = journal
        self._worker = worker
        self._group = group
        self._number = number
        self._assignments = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def start(self, listener: AssignmentListener) -> None:
        await self._consumer.start(RecordingListener(listener, self))

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        *,
        max_records: int,
        timeout: float,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        fetched = await self._consumer.fetch(partitions, max_records=max_records, timeout=timeout, max_bytes=max_bytes)
        fetched = [each._replace(records=[*each.records]) if isinstance(each, Chunk) else each for each in fetched]
        reader = f"{self._worker}/{self._number}.{self._assignments}"
        for each in fetched:
            if isinstance(each, Chunk) and each.records:
                records = tuple((record.offset, id_of(record.value)) for record in each.records)
                self._journal.write(Polled(time=now(), reader=reader, at=each.partition, records=records))
        return fetched

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        asked = tuple((partition, commit.offset) for partition, commit in offsets.items())
        self._journal.write(Committing(time=now(), group=self._group, offsets=asked, who=self._worker))
        await self._consumer.commit(offsets)

    @property
    def engine(self) -> Any:
        return self._consumer._engine  # type: ignore[attr-defined]

    def note(self, event: str) -> None:
        self._journal.write(Note(time=now(), what=event, who=self._worker))

    def count_assignment(self) -> None:
        self._assignments += 1


_numbers = count()


class RecordingPublisher:
    """Passes every call to a producer, and records what it publishes to some topics.

    Args:
        producer: The one that does the work.
        journal: Gets the records.
        name: Of its worker.
        topics: Which.
    """

    def __init__(self, producer: CallProducer, journal: Journal, name: str, topics: Collection[str]) -> None:
        self._producer = producer
        self._journal = journal
        self._name = name
        self._topics = topics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def queue_call(self, call: Call) -> None:
        marked, offered = [*call.messages], dict[int, str]()
        for at, message in enumerate(call.messages):
            if message.topic in self._topics:
                offered[at] = write = f"{self._name}/{next(_numbers)}"
                marked[at] = msgspec.structs.replace(message, headers=(*message.headers, (WRITE, write.encode())))
                self._journal.write(Offered(time=now(), id=write, topic=message.topic, of=id_of(message.value)))
        self._producer.queue_call(RecordedCall(call, marked, partial(self._note_stored, offered)))

    def _note_stored(self, offered: Mapping[int, str], published: Sequence[Published | None]) -> None:
        acknowledged = now()
        self._journal.write(
            *(
                Stored(
                    time=acknowledged, id=write, at=TopicPartition(place.topic, place.partition), offset=place.offset
                )
                for at, write in offered.items()
                if (place := published[at]) is not None
            )
        )


class RecordedCall(Call):
    """A call that another stands for, whose messages have no marks.

    Args:
        call: The other.
        messages: With their marks.
        note: Hears where they were stored before anybody else does.
    """

    __slots__ = ("_call", "_note")

    def __init__(
        self, call: Call, messages: Sequence[Outgoing], note: Callable[[Sequence[Published | None]], None]
    ) -> None:
        super().__init__(messages, call.future)
        self._call = call
        self._note = note

    def finish(self, published: Sequence[Published | None]) -> None:
        self._note(published)
        self._call.error = self.error
        self._call.finish(published)


class RecordingProducer:
    """Passes every call to a producer, and records the messages of its transactions and how they end.

    Args:
        producer: The one that does the work.
        journal: Gets the records.
        name: Of the producer and its worker.
    """

    def __init__(self, producer: TransactionalProducer, journal: Journal, name: str) -> None:
        self._producer = producer
        self._journal = journal
        self._name = name
        self._transaction = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    async def begin(self) -> None:
        self._transaction = f"{self._name}.{next(_numbers)}"
        await self._producer.begin()

    async def send(self, message: Outgoing) -> Published:
        return (await self.send_many([message]))[0]

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        marked, offered = [], []
        for message in messages:
            write = f"{self._transaction}/{next(_numbers)}"
            headers = (*message.headers, (WRITE, write.encode()))
            marked.append(msgspec.structs.replace(message, headers=headers))
            offered.append(
                Offered(
                    time=now(),
                    id=write,
                    topic=message.topic,
                    key=None if message.key is None else message.key.decode(),
                    transaction=self._transaction,
                    of=id_of(message.value),
                )
            )
        self._journal.write(*offered)
        published = await self._producer.send_many(marked)
        acknowledged = now()
        self._journal.write(
            *(
                Stored(
                    time=acknowledged, id=each.id, at=TopicPartition(place.topic, place.partition), offset=place.offset
                )
                for each, place in zip(offered, published, strict=True)
            )
        )
        return published

    async def send_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        asked = tuple((partition, commit.offset) for partition, commit in offsets.items())
        self._journal.write(
            Committing(time=now(), group=group, offsets=asked, who=self._name, transaction=self._transaction)
        )
        await self._producer.send_offsets(group, offsets)

    async def commit(self) -> None:
        self._journal.write(Ended(time=now(), transaction=self._transaction, committed=True))
        await self._producer.commit()
        self._journal.write(Ended(time=now(), transaction=self._transaction, committed=True, acknowledged=True))

    async def abort(self) -> None:
        self._journal.write(Ended(time=now(), transaction=self._transaction, committed=False))
        await self._producer.abort()


class RecordingListener:
    def __init__(self, listener: AssignmentListener, consumer: RecordingConsumer) -> None:
        self._listener = listener
        self._consumer = consumer

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.count_assignment()
        self._consumer.note("assigned")
        await self._listener.assigned(partitions)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.note("revoked")
        await self._listener.revoked(partitions)

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.note("lost")
        await self._listener.lost(partitions)
