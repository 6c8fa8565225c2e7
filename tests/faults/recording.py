"""A transport that writes down what goes through it: what is polled, published in transactions, committed, assigned."""

import re
from collections.abc import Collection, Mapping, Sequence
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
    TransactionalProducer,
    Transport,
)
from tests.faults.journal import Journal, now

ID = re.compile(rb'"id": ?"([^"]*)"')

WRITE = "trial-write"
"""Header with the id of what is published in a transaction: two attempts publish the same, and are told apart by it."""


def id_of(value: bytes | None) -> str:
    """Return the id in a value, also in one that is not JSON."""
    found = ID.search(value or b"")
    return found[1].decode() if found else "?"


class RecordingTransport:
    """Passes everything on.

    Args:
        transport: To whom.
        journal: Where it is written.
        who: The worker's name.
    """

    def __init__(self, transport: Transport, journal: Journal, who: str) -> None:
        self._transport = transport
        self._journal = journal
        self._who = who
        self._consumers = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def consumer(self, group: str, topics: Any, **options: Any) -> Consumer:
        self._consumers += 1
        consumer = self._transport.consumer(group, topics, **options)
        if group.endswith((".renew", ".renew.retry")):
            return consumer  # of a topic that is made again: its offsets mean something else each time
        self._latest = _Consumer(consumer, self._journal, self._who, group, self._consumers)
        return self._latest

    def transactional_producer(self, transactional_id: str, **options: Any) -> TransactionalProducer:
        producer = self._transport.transactional_producer(transactional_id, **options)
        return RecordingProducer(producer, self._journal, f"{transactional_id}#{self._who}")

    def end_fetching(self) -> None:
        """Let the client's fetch task die without a word, as a defect of the client library would. From any thread."""
        task = self._latest.engine._fetcher._fetch_task
        task.get_loop().call_soon_threadsafe(task.cancel)
        self._latest.note("fetch task dies")


class _Consumer:
    def __init__(self, consumer: Consumer, journal: Journal, who: str, group: str, number: int) -> None:
        self._consumer = consumer
        self._journal = journal
        self._who = who
        self._group = group
        self._number = number
        self._generation = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def start(self, listener: AssignmentListener) -> None:
        await self._consumer.start(_Listener(listener, self))

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
        reader = f"{self._who}/{self._number}.{self._generation}"
        for each in fetched:
            if isinstance(each, Chunk) and each.records:
                records = tuple((record.offset, id_of(record.value)) for record in each.records)
                self._journal.write(Polled(time=now(), reader=reader, at=each.partition, records=records))
        return fetched

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        asked = tuple((partition, commit.offset) for partition, commit in offsets.items())
        self._journal.write(Committing(time=now(), group=self._group, offsets=asked, who=self._who))
        await self._consumer.commit(offsets)

    @property
    def engine(self) -> Any:
        return self._consumer._engine  # type: ignore[attr-defined]

    def note(self, what: str) -> None:
        self._journal.write(Note(time=now(), what=what, who=self._who))

    def begin_generation(self) -> None:
        self._generation += 1


_numbers = count()


class RecordingProducer:
    """Passes transactions on, and writes down what is in them and how they end.

    Args:
        producer: To whom.
        journal: Where it is written.
        who: The worker and the producer.
    """

    def __init__(self, producer: TransactionalProducer, journal: Journal, who: str) -> None:
        self._producer = producer
        self._journal = journal
        self._who = who
        self._transaction = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    async def begin(self) -> None:
        self._transaction = f"{self._who}.{next(_numbers)}"
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
            Committing(time=now(), group=group, offsets=asked, who=self._who, transaction=self._transaction)
        )
        await self._producer.send_offsets(group, offsets)

    async def commit(self) -> None:
        self._journal.write(Ended(time=now(), transaction=self._transaction, committed=True))
        await self._producer.commit()
        self._journal.write(Ended(time=now(), transaction=self._transaction, committed=True, acknowledged=True))

    async def abort(self) -> None:
        self._journal.write(Ended(time=now(), transaction=self._transaction, committed=False))
        await self._producer.abort()


class _Listener:
    def __init__(self, listener: AssignmentListener, consumer: _Consumer) -> None:
        self._listener = listener
        self._consumer = consumer

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.begin_generation()
        self._consumer.note("assigned")
        await self._listener.assigned(partitions)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.note("revoked")
        await self._listener.revoked(partitions)

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        self._consumer.note("lost")
        await self._listener.lost(partitions)
