"""Reads what workers publish, with a client that is not ours: while they publish it, to write down what is seen, or at the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import aiokafka
import aiokafka.errors

from octopus.events import TopicPartition
from octopus.testing.history import Polled
from tests.faults.journal import Journal, now
from tests.faults.recording import WRITE


class OutputReader:
    """Follows some partitions from their beginning, over outages; it never skips and never goes back.

    Args:
        brokers: `host:port`.
        partitions: Which.
        journal: Where what was read is written.
        uncommitted: Whether it reads aborted and open transactions, too.

    Attributes:
        positions: How far it is, past control records and what it must not see.
    """

    def __init__(
        self, brokers: str, partitions: Sequence[TopicPartition], journal: Journal, *, uncommitted: bool
    ) -> None:
        self.positions = dict.fromkeys(partitions, 0)
        self._brokers = brokers
        self._journal = journal
        self._uncommitted = uncommitted
        self._name = "reader of everything" if uncommitted else "reader of what is committed"
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read_on())

    async def stop(self) -> None:
        """End."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_on(self) -> None:
        while True:
            with contextlib.suppress(aiokafka.errors.KafkaError, OSError, TimeoutError):
                await self._read()
            await asyncio.sleep(0.5)  # the broker is away; asking again at once would not help

    async def _read(self) -> None:
        consumer: Any = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._brokers,
            isolation_level="read_uncommitted" if self._uncommitted else "read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            metadata_max_age_ms=5000,
        )
        places = {aiokafka.TopicPartition(*partition): partition for partition in self.positions}
        consumer.assign([*places])
        try:
            await consumer.start()
            for place, partition in places.items():
                consumer.seek(place, self.positions[partition])
            while True:
                found = await consumer.getmany(timeout_ms=200)
                for place, records in found.items():
                    self._write(places[place], records)
                for place, partition in places.items():
                    self.positions[partition] = await consumer.position(place)
        finally:
            await consumer.stop()

    def _write(self, at: TopicPartition, records: Sequence[Any]) -> None:
        ids = tuple((record.offset, dict(record.headers).get(WRITE, b"?").decode()) for record in records)
        self._journal.write(Polled(time=now(), reader=self._name, at=at, records=ids, uncommitted=self._uncommitted))
        self.positions[at] = records[-1].offset + 1


async def read_partitions(brokers: str, partitions: Iterable[TopicPartition]) -> AsyncIterator[Any]:
    """Return every record of some partitions, with a client that is not ours."""
    places = [aiokafka.TopicPartition(*partition) for partition in partitions]
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    consumer.assign(places)
    try:
        await consumer.start()
        await consumer.seek_to_beginning(*places)
        for place, end in (await consumer.end_offsets(places)).items():
            while await consumer.position(place) < end:
                for record in (await consumer.getmany(place, timeout_ms=500)).get(place, ()):
                    yield record
    finally:
        await consumer.stop()
