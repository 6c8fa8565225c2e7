"""What waits in memory for its time and whose topic is gone is written anew: it cannot be read again."""

import asyncio
from collections.abc import Collection, Iterable

from octopus.errors import TransportError
from octopus.events import StoredRecord, TopicPartition
from octopus.logs import get_logger
from octopus.retrying import RetryPipeline
from octopus.runner import Assignment, Runner
from octopus.text import first_few
from octopus.transports.base import Consumer
from octopus.worker.known_topics import is_another

logger = get_logger("octopus.worker")


WRITE_AGAIN = 1.0
"""Seconds until what no topic took is written once more."""


class Rescue:
    """Sees to it that retries which wait in memory do not go with their topic.

    Where that was made again they are written to it as the runner comes to them. Where an assignment ends whose topic is not there
    any more, what is left is kept with the pipeline, which outlives the group's consumers, and is written, beside everything
    else, as soon as there is a topic.

    Args:
        pipeline: Of these retries.
        runner: What they wait in.
        consumer: The group member.
        patience: Seconds that brokers have to say which topics are there.
    """

    def __init__(self, pipeline: RetryPipeline, runner: Runner, consumer: Consumer, patience: float) -> None:
        self._pipeline = pipeline
        self._runner = runner
        self._consumer = consumer
        self._patience = patience
        self._gone: set[Assignment] = set()  # whose topic is
        self._running: dict[Assignment, list[tuple[StoredRecord, int]]] = {}  # and may still finish; with attempts
        self._said = 0  # how many are stranded, as last said
        self._writer: asyncio.Task[None] | None = None

    @property
    def stranded(self) -> int:
        """How many records are in memory only."""
        return len(self._pipeline.stranded)

    def tend(self, outdated: Collection[Assignment]) -> None:
        """Write what waits in assignments of topics that were made again, and what is left of others, from now on."""
        self._abandon(outdated)
        stranded = self._pipeline.stranded
        if len(stranded) > self._said:
            logger.warning(
                "%s: %d events that wait for their retry are in memory only, because %s is gone. They are written to it as "
                "soon as it is there again",
                self._pipeline.group,
                len(stranded),
                first_few(sorted({repr(partition.topic) for _, partition, _ in stranded})),
            )
        self._said = len(stranded)
        if stranded and (self._writer is None or self._writer.done()):
            self._writer = asyncio.create_task(self._write(), name=f"octopus rescue {self._pipeline.group}")

    async def before_drain(self, assignments: Collection[Assignment], timeout: float) -> None:
        """Begin to write anew what waits in assignments that are about to end, if their topic is not there any more.

        Args:
            assignments: Which.
            timeout: Seconds in which a broker must say so.
        """
        in_flight = [each for each in assignments if each.is_open and each.ledger.in_flight]
        if in_flight:
            self._take(await self._find_gone(in_flight, timeout))
            self.tend(())

    def keep(self, assignment: Assignment) -> bool:
        """Before an assignment is closed: if its topic is gone, keep what is not finished; tell whether that is so."""
        if assignment not in self._gone:
            return False
        self._take([assignment])
        self._strand(assignment, self._running.pop(assignment))
        self._gone.discard(assignment)
        return True

    async def finish(self, timeout: float) -> None:
        """Write what was kept, in so many seconds or in the time that brokers have for an answer."""
        self.tend(())
        if self._writer is not None:
            try:
                await asyncio.wait([self._writer], timeout=max(timeout, self._patience))
            finally:
                self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if left := len(self._pipeline.stranded):
            logger.error(
                "%s: %d events that wait for their retry are still in no topic. They are lost if the process ends now",
                self._pipeline.group,
                left,
            )

    def _abandon(self, assignments: Collection[Assignment]) -> None:
        fresh = [each for each in assignments if each.is_open and each not in self._gone]
        fresh = [each for each in fresh if self._pipeline.abandon(each.partition)]
        self._gone.update(fresh)
        self._runner.hasten(fresh)

    def _take(self, gone: Collection[Assignment]) -> None:
        waiting, running = self._runner.withdraw(gone)
        self._gone.update(gone)
        for assignment in gone:
            self._strand(assignment, waiting.get(assignment, ()))
            self._running.setdefault(assignment, []).extend(running.get(assignment, ()))

    def _strand(self, assignment: Assignment, records: Iterable[tuple[StoredRecord, int]]) -> None:
        for record, attempt in records:
            if assignment.ledger.is_open(record.offset):
                place = assignment.topic_id, assignment.partition, record.offset
                self._pipeline.stranded[place] = record, attempt

    async def _find_gone(self, assignments: Collection[Assignment], timeout: float) -> list[Assignment]:
        try:
            async with asyncio.timeout(min(timeout, self._patience)):
                there = await self._consumer.topic_ids({each.partition.topic for each in assignments})
        except (TransportError, TimeoutError):
            return []  # no broker says that they are gone
        return [
            each
            for each in assignments
            if each.partition.topic not in there or is_another(each.topic_id, there[each.partition.topic])
        ]

    async def _write(self) -> None:
        written = 0
        while True:
            there = [*self._pipeline.stranded]
            await asyncio.gather(*[self._save(each) for each in there])
            written += len(there) - len(self._pipeline.stranded.keys() & {*there})
            if not self._pipeline.stranded:
                break
            await asyncio.sleep(WRITE_AGAIN)
        logger.info("%s: %d events that waited in memory only are in a topic again", self._pipeline.group, written)

    async def _save(self, place: tuple[str | None, TopicPartition, int]) -> None:
        if await self._pipeline.save(*self._pipeline.stranded[place]):
            del self._pipeline.stranded[place]


class NoRescue:
    """Takes the place of a rescue in groups whose records can all be read again: they have nothing to rescue."""

    stranded = 0

    def tend(self, outdated: Collection[Assignment]) -> None:
        """Do nothing."""

    async def before_drain(self, assignments: Collection[Assignment], timeout: float) -> None:
        """Do nothing."""

    def keep(self, assignment: Assignment) -> bool:
        """Keep nothing."""
        return False

    async def finish(self, timeout: float) -> None:
        """Do nothing."""
