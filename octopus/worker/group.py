"""One consumer group in this process: fetch, submit, commit; take and give back partitions.

Fetching, handling and committing run side by side and meet in the ledgers of the generations. The order in which a
record becomes final: outputs acknowledged → dead letter acknowledged → settled → committed.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from octopus.config import WorkerSettings
from octopus.errors import ConnectionFailed, HandlerStopped, OctopusError, PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.offsets import decode_map, encode_map
from octopus.pipeline import Pipeline
from octopus.routing import StartAt
from octopus.runner import Generation, Runner
from octopus.transports.base import Chunk, Commit, Consumer, Fetched, Start, Unreadable
from octopus.types import RunStretch
from octopus.unread import Unread
from octopus.worker.flow import FETCH_RECORDS, Flow
from octopus.worker.outlook import Outlook
from octopus.worker.status import GroupStatus, Totals

logger = logging.getLogger("octopus.worker")

FETCH_WAIT = 0.5
"""Seconds an idle fetch waits."""

UNASSIGNED_WAIT = 0.05
"""The same while no partition is ours: the first one should not have to wait for its first fetch."""

SHORT_WAIT = 0.01
"""The same while other partitions are full: they may have room again soon."""

EASE_WAIT = 0.1
"""The same while it is for the handlers to go on."""

ANCHOR = "octopus-anchor-1"

SHORTEST_COMMIT_INTERVAL = 0.01
"""Seconds; an interval of 0 means as often as possible, not a loop that does nothing else."""


class GroupWorker:
    """Runs one pipeline on one consumer; told by the consumer which partitions it has.

    Args:
        pipeline: What to run.
        consumer: The group member.
        settings: Limits and intervals.
        now: Seconds since the epoch, for starts that are given as a time span.

    Attributes:
        stopped: Why the line stopped, or None.
        failure: What the consumer broke with, or None.
        outlook: What is known of the broker; whoever keeps it up to date puts it here.
    """

    def __init__(self, pipeline: Pipeline, consumer: Consumer, settings: WorkerSettings, now: float) -> None:
        self.pipeline = pipeline
        self.stopped: HandlerStopped | None = None
        self.failure: OctopusError | None = None
        self.outlook = Outlook()
        self._joined_at: float | None = None
        self._consumer = consumer
        self._settings = settings
        self._epoch = now - asyncio.get_running_loop().time()
        self._runner = Runner(
            self,
            ordering=pipeline.ordering,
            concurrency=pipeline.concurrency,
            batch=pipeline.batch,
            within=pipeline.within,
        )
        self._loop = asyncio.get_running_loop()
        self._generations: dict[TopicPartition, Generation] = {}
        self._totals = Totals()
        self._committing = asyncio.Lock()
        self._commit_wanted = asyncio.Event()
        self._uncommitted: set[Generation] = set()  # may have something to commit
        self._accepted = 0  # records, from the start
        self._settled_at_commit = 0
        self._commit_error: TransportError | None = None
        self._fetched_at = self._committed_at = self._loop.time()
        self._flow = Flow(
            settings, pipeline.batch, is_full=self._is_full, hurry=self._runner.hurry, now=self._fetched_at
        )

    def bind(self, partition: TopicPartition) -> RunStretch:
        """Return the compiled path for the records of one partition."""
        return self.pipeline.bind_stretch(partition)

    # ── lifetime ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Consume until cancelled, then let what runs finish, commit and leave the group.

        Raises:
            TransportError: The consumer as a whole cannot go on; `.retryable` tells whether a new one may.
        """
        committer = asyncio.create_task(self._commit_regularly(), name=f"octopus commit {self.pipeline.group}")
        try:
            await self._consumer.start(self)
            self._joined_at = self._loop.time()
            await self._consume(committer)
        finally:
            committer.cancel()
            try:
                await asyncio.gather(committer, return_exceptions=True)
            finally:  # whoever cancels a second time cuts the drain short, not the leaving
                await self._leave()

    async def _leave(self) -> None:
        try:
            if not await self._runner.drain(self._generations.values(), self._settings.drain_timeout):
                logger.warning(
                    "%s: %d handlers did not finish within %.0f s; their records will be delivered again",
                    self.pipeline.group,
                    len(self._runner.running),
                    self._settings.drain_timeout,
                )
            await self._commit(self._generations.values())
        finally:
            if not await self._runner.close():
                logger.warning("%s: some handlers do not end although they were cancelled", self.pipeline.group)
            self._close(self._generations)
            await self._consumer.stop()

    # ── fetch and submit ──────────────────────────────────────────────────────────────────────────────────────────

    async def _consume(self, committer: asyncio.Task[None]) -> None:
        while not self._runner.stopped.done():
            if committer.done():
                committer.result()  # raises: what settles must not pile up uncommitted in silence
            self._flow.balance()
            arrived = await self._fetch()
            for fetched in arrived:
                self._accept(fetched)
            self._fetched_at = self._loop.time()
            if arrived:
                self._flow.end_turn(self._fetched_at, is_quick=not self._runner.suspends)
            if self._accepted - self._settled_at_commit >= self._settings.commit_every <= self._settled_since_commit:
                self._commit_wanted.set()
        self.stopped = self._runner.stopped.result()
        logger.error("%s stopped: %s", self.pipeline.group, self.stopped)

    async def _fetch(self) -> list[Fetched]:
        flow = self._flow
        if (flow.held and not flow.ready) or self._runner.supply >= FETCH_RECORDS:
            # Wait for handlers instead of the broker: nothing has room, or what they could start is there already, and more
            # of it would only be cold by the time its turn comes. But give the group machinery its turn.
            if await self._runner.eased(EASE_WAIT):
                return []
            return await self._consumer.fetch((), max_records=0, timeout=0.0)
        wait = SHORT_WAIT if flow.held else FETCH_WAIT if self._generations else UNASSIGNED_WAIT
        try:
            async with asyncio.timeout(self._settings.stall_timeout or None):
                return await self._consumer.fetch(flow.ready, max_records=flow.records, timeout=wait)
        except TimeoutError as error:
            raise ConnectionFailed(
                f"a fetch of {wait:g} s did not come back for {self._settings.stall_timeout:g} s"
            ) from error

    def _accept(self, fetched: Fetched) -> None:
        generation = self._generations.get(fetched.partition)
        if generation is None or not generation.is_open:
            return
        match fetched:
            case Chunk(_, records, next_offset, size_bytes):
                if isinstance(records, Unread):
                    records.report = partial(self._refuse, generation)
                self._accepted += len(records)
                self._runner.submit(generation, records, next_offset, size_bytes)
                self._flow.busy.add(generation)
                self._uncommitted.add(generation)
            case Unreadable(_, error):
                self._refuse(generation, error)

    def _refuse(self, generation: Generation, error: TransportError) -> None:
        """Read no more of a partition that cannot be read on."""
        if generation.is_open:
            self._flow.refuse(generation.partition, error)
            logger.error(
                "%s stops reading %s: %s. The other partitions go on.",
                self.pipeline.group,
                generation.partition,
                str(error).rstrip("."),
            )

    def _is_full(self, generation: Generation) -> bool:
        """Tell whether a partition has no room for a reason that the flow does not know of."""
        return False

    # ── commit ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit_regularly(self) -> None:
        interval = max(self._settings.commit_interval, SHORTEST_COMMIT_INTERVAL)
        while True:
            try:
                async with asyncio.timeout(interval):
                    await self._commit_wanted.wait()
            except TimeoutError:
                pass
            self._commit_wanted.clear()
            for generation in self._flow.busy:
                generation.lanes.stand_alone()  # what has waited up to now may wait for long
            await self._commit(self._uncommitted)
            self._uncommitted = {
                generation
                for generation in self._uncommitted
                if generation.is_open and (generation.ledger.in_flight or generation.has_progress)
            }

    async def _commit(self, generations: Iterable[Generation]) -> None:
        """Store what is settled. A failure is not final: the next commit brings the same or a higher offset."""
        async with self._committing:
            self._settled_at_commit = self._settled
            due = [generation for generation in generations if generation.is_open and generation.has_progress]
            if not due:
                self._committed_at = self._loop.time()
                return
            offsets: dict[TopicPartition, Commit] = {}
            ahead = [generation.ledger.ahead for generation in due]
            for generation in due:
                committable = generation.ledger.committable
                metadata = encode_map(committable, generation.ledger.settled_ahead())
                offsets[generation.partition] = Commit(committable, metadata)
            try:
                async with asyncio.timeout(self._settings.commit_timeout):
                    await self._consumer.commit(offsets)
            except PartitionLost as error:
                logger.info("%s: not committed, the group has moved on: %s", self.pipeline.group, error)
            except (TransportError, TimeoutError) as error:
                is_said = self._commit_error is not None or self.outlook.trouble is not None
                self._commit_error = error if isinstance(error, TransportError) else TransportError("commit timed out")
                logger.log(
                    logging.DEBUG if is_said else logging.WARNING,
                    "%s: commit failed, will be repeated: %s",
                    self.pipeline.group,
                    self._commit_error,
                )
            else:
                if self._commit_error is not None:
                    away = self._loop.time() - self._committed_at
                    logger.info("%s commits again, after %.1f s", self.pipeline.group, away)
                self._committed_at = self._loop.time()
                self._commit_error = None
                for generation, count in zip(due, ahead, strict=True):
                    generation.note_committed(offsets[generation.partition].offset, count)

    # ── the group's decisions (AssignmentListener) ────────────────────────────────────────────────────────────────

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Find where to start, make that the committed offset of partitions that have none, and begin."""
        if not partitions:
            return
        committed = await self._consumer.committed(partitions)
        fresh = [partition for partition in partitions if committed[partition] is None]
        anchors = await self._anchor(fresh) if fresh else {}
        unstored = {*anchors} if anchors and not await self._store(anchors) else set()
        starts = {partition: committed[partition] or anchors[partition] for partition in partitions}
        await self._consumer.seek({partition: commit.offset for partition, commit in starts.items()})
        for partition, commit in starts.items():
            ahead = decode_map(commit.offset, commit.metadata)
            generation = self._runner.open(partition, commit.offset, ahead)
            if partition not in unstored:
                generation.note_committed(commit.offset)
            self._generations[partition] = generation
            self._uncommitted.add(generation)
            self._flow.open(partition)
        logger.info("%s reads %s", self.pipeline.group, ", ".join(map(str, sorted(partitions))))

    async def _anchor(self, fresh: list[TopicPartition]) -> dict[TopicPartition, Commit]:
        """Resolve the start of partitions without a committed offset, which is then committed at once.

        A partition that appears when the group is there already is read from its beginning: with `latest`, a crash or a
        new partition would otherwise lose what came in between. The metadata of an anchor says when the group began with
        the topic, and how many partitions there were: so a member that is assigned its share a moment after another one
        does not take it for new, and "latest" means the same moment for both.
        """
        counts = Counter(partition.topic for partition in self._consumer.known_partitions() | {*fresh})
        siblings = [
            TopicPartition(topic, number) for topic in {p.topic for p in fresh} for number in range(counts[topic])
        ]
        committed = await self._consumer.committed(siblings)
        now = self._epoch + self._loop.time()
        births: dict[str, Birth | None] = {}
        for partition, commit in committed.items():
            if commit is not None:
                births[partition.topic] = Birth.read(commit.metadata) or births.get(partition.topic)
        anchors: dict[TopicPartition, Commit] = {}
        starts: dict[Start, list[TopicPartition]] = {}
        for partition in fresh:
            birth = births.get(partition.topic, Birth(counts[partition.topic], now))
            start: Start = "earliest"
            if birth is not None and partition.partition < birth.partitions:
                start = resolve_start(self.pipeline.start, birth.time)
                if start == "latest" and partition.topic in births:
                    start = birth.time
            starts.setdefault(start, []).append(partition)
        for start, partitions in starts.items():
            for partition, offset in (await self._consumer.offsets(partitions, start)).items():
                birth = births.get(partition.topic, Birth(counts[partition.topic], now))
                anchors[partition] = Commit(offset, birth.text if birth is not None else "")
        return anchors

    async def _store(self, anchors: dict[TopicPartition, Commit]) -> bool:
        try:
            await self._consumer.commit(anchors)
        except PartitionLost as error:
            # The group moves on already: these partitions are about to be revoked, or lost, and anchored by their owner.
            logger.info("%s: not anchored: %s", self.pipeline.group, error)
            return False
        return True

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Let what runs finish within the budget, commit, and let go."""
        leaving = [generation for partition in partitions if (generation := self._generations.get(partition))]
        self._flow.ready.difference_update(partitions)
        if not await self._runner.drain(leaving, self._settings.revoke_budget):
            logger.warning(
                "%s: some handlers outlast the rebalance; their records go to the new owner", self.pipeline.group
            )
        await self._commit(leaving)
        self._close(partitions)

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Forget them: somebody else has them, so nothing may be committed."""
        level = logging.WARNING if self.outlook.trouble is None else logging.INFO  # an outage explains it
        logger.log(level, "%s lost %s", self.pipeline.group, ", ".join(map(str, sorted(partitions))))
        self._close(partitions)

    def _close(self, partitions: Iterable[TopicPartition]) -> None:
        leaving = []
        for partition in [*partitions]:
            generation = self._generations.pop(partition, None)
            self._flow.close(partition, generation)
            if generation is not None:
                self._uncommitted.discard(generation)
                self._totals.add(generation)
                leaving.append(generation)
        self._runner.revoke(leaving)

    # ── being watched ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """What it reads now."""
        return self._generations.keys()

    @property
    def runner(self) -> Runner:
        """What runs the handlers."""
        return self._runner

    @property
    def _settled_since_commit(self) -> int:
        return self._settled - self._settled_at_commit

    @property
    def _settled(self) -> int:
        return self._totals.settled + sum([each.written.settled_count for each in self._generations.values()])

    @property
    def lag(self) -> int | None:
        """Records between the committable offsets and the ends; None while an end is not known, or not any more."""
        lags = [
            self.outlook.lag(partition, self._consumer.end_offset(partition), generation.ledger.committable)
            for partition, generation in self._generations.items()
        ]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if lags and len(known) == len(lags) else None

    async def reach(self) -> None:
        """Ask the broker something small, to see that it answers.

        Raises:
            TransportError: It does not.
        """
        if partitions := [*self._generations][:1] or [*self._consumer.known_partitions()][:1]:
            await self._consumer.offsets(partitions, "latest")

    async def is_caught_up(self) -> bool:
        """Ask the broker whether everything published until now is settled."""
        generations = {**self._generations}
        if not generations:
            return False
        ends = await self._consumer.offsets(generations, "latest")
        return all(
            generation.is_open and self._reached(generation) >= ends[partition]
            for partition, generation in generations.items()
        )

    def _reached(self, generation: Generation) -> int:
        """Return the offset before which nothing is left to do now; deferred records that wait are for later."""
        waiting = self.pipeline.waiting
        if waiting and waiting == sum(each.ledger.in_flight for each in self._generations.values()):
            return generation.ledger.position
        return generation.ledger.committable

    def status(self) -> GroupStatus:
        """Return a snapshot for people and health checks."""
        totals = self._totals.with_open(self._generations.values())
        now = self._loop.time()
        return GroupStatus(
            group=self.pipeline.group,
            handlers=self.pipeline.handlers,
            partitions=tuple(sorted(self._generations)),
            stopped=str(self.stopped) if self.stopped else None,
            failure=str(self.failure) if self.failure else None,
            since_join=None if self._joined_at is None else now - self._joined_at,
            unreadable={str(partition): str(error) for partition, error in self._flow.unreadable.items()},
            silent={str(each): why for each, why in self.outlook.silent.items() if each in self._generations},
            settled=totals.settled,
            skipped=totals.skipped,
            retried=totals.retried,
            dead=totals.buried,
            deferred=totals.deferred,
            in_flight=sum(generation.ledger.in_flight for generation in self._generations.values()),
            running=len(self._runner.running),
            delayed=self._runner.delayed,
            lag=self.lag,
            since_fetch=now - self._fetched_at,
            since_commit=now - self._committed_at,
            commit_error=str(self._commit_error) if self._commit_error else None,
        )


class Birth(NamedTuple):
    """When a group began to read a topic, as an anchor's metadata says it: `octopus-anchor-1 PARTITIONS SECONDS`.

    Attributes:
        partitions: How many the topic had.
        time: Seconds since the epoch.
    """

    partitions: int
    time: float

    @classmethod
    def read(cls, metadata: str) -> "Birth | None":
        """Return what an anchor says; None for any other commit."""
        match metadata.split(" "):
            case [prefix, partitions, moment] if prefix == ANCHOR:
                with contextlib.suppress(ValueError):
                    return cls(int(partitions), float(moment))
        return None

    @property
    def text(self) -> str:
        """The metadata."""
        return f"{ANCHOR} {self.partitions} {self.time:.3f}"


def resolve_start(start: StartAt, now: float) -> Start:
    """Turn a handler's `start=` into what brokers understand.

    Args:
        start: As registered.
        now: Seconds since the epoch.
    """
    match start:
        case datetime():
            return start.timestamp()
        case timedelta():
            return now - start.total_seconds()
        case _:
            return start
