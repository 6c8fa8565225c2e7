"""One consumer group in this process: fetch, submit, commit; take and give back partitions.

Fetching, handling and committing run side by side and meet in the ledgers of the generations. The order in which a
record becomes final: outputs acknowledged → dead letter acknowledged → settled → committed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable
from functools import partial

import msgspec

from octopus.config import WorkerSettings
from octopus.errors import (
    ConnectionFailed,
    HandlerStopped,
    OctopusError,
    OffsetOutOfRange,
    PartitionLost,
    TopicNotFound,
    TransportError,
)
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.offsets import decode_map, metadata_of, without_topic_id
from octopus.pipeline import Pipeline
from octopus.runner import Generation, Runner
from octopus.transports.base import Chunk, Commit, Consumer, Fetched, Unreadable
from octopus.types import RunStretch
from octopus.unread import Unread
from octopus.worker.committing import CommitHealth
from octopus.worker.endings import commit_at_last, finish_running
from octopus.worker.flow import FETCH_RECORDS, Flow
from octopus.worker.known_topics import KnownTopics
from octopus.worker.outlook import Outlook
from octopus.worker.rescue import Rescue
from octopus.worker.starts import Starts
from octopus.worker.status import GroupStatus, Totals, total_lag
from octopus.worker.topic_watch import TopicWatch, say_unreadable

logger = get_logger("octopus.worker")

FETCH_WAIT = 0.5
"""Seconds an idle fetch waits."""

UNASSIGNED_WAIT = 0.05
"""The same while no partition is ours: the first one should not have to wait for its first fetch."""

SHORT_WAIT = 0.01
"""The same while other partitions are full: they may have room again soon."""

EASE_WAIT = 0.1
"""The same while it is for the handlers to go on."""

SHORTEST_COMMIT_INTERVAL = 0.01
"""Seconds; an interval of 0 means as often as possible, not a loop that does nothing else."""


class GroupWorker:
    """Runs one pipeline on one consumer; told by the consumer which partitions it has.

    Args:
        pipeline: What to run.
        consumer: The group member.
        settings: Limits and intervals.
        now: Seconds since the epoch, for starts that are given as a time span.
        known: The topics that the group has read; shared by the workers that one group has one after the other.

    Attributes:
        stopped: Why the line stopped, or None.
        failure: What the consumer broke with, or None.
        unsaved: Why what was finished at the end could not be committed, or None.
        outlook: What is known of the broker; whoever keeps it up to date puts it here.
        earlier: What the workers counted that the group had before.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        consumer: Consumer,
        settings: WorkerSettings,
        now: float,
        known: KnownTopics | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.stopped: HandlerStopped | None = None
        self.failure: OctopusError | None = None
        self.unsaved: TransportError | None = None
        self.outlook = Outlook()
        self.waits_for: str | None = None
        self._joined_at: float | None = None
        self._rests_since: float | None = None  # loop time
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
        self.earlier = Totals()
        self._committing = asyncio.Lock()
        self._changing = asyncio.Lock()  # which partitions are ours, and where they are read
        self._known = known or KnownTopics()
        self._starts = Starts(pipeline.group, consumer, self._known, pipeline.start)
        self._commit_wanted = asyncio.Event()
        self._uncommitted: set[Generation] = set()  # may have something to commit
        self._accepted = 0  # records, from the start
        self._settled_at_commit = 0
        self._drained_by: float | None = None
        self._last: GroupStatus | None = None  # before partitions were given back
        self._fetched_at = self._loop.time()
        self._commits = CommitHealth(pipeline.group, self._fetched_at)
        self._flow = Flow(
            settings, pipeline.batch, is_full=self._is_full, hurry=self._runner.hurry, now=self._fetched_at
        )
        self._rescue = Rescue(pipeline, self._runner, consumer, settings.commit_timeout)
        self._topics = TopicWatch(
            pipeline.group,
            consumer,
            self._known,
            self._starts,
            self._flow,
            self._generations,
            patience=settings.commit_timeout,
            clock=lambda: self._epoch + self._loop.time(),
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
            self._joined_at = self._rests_since = self._loop.time()
            await self._consume(committer)
        finally:
            limit = self._settings.drain_timeout
            self._drained_by = self._loop.time() + limit
            group, generations = self.pipeline.group, self._generations.values()
            try:
                await finish_running(group, self._runner, generations, self._rescue, committer, limit)
                self._note_stop()
            finally:  # whoever cancels a second time cuts the drain short, not the leaving
                await self._leave()

    async def _leave(self) -> None:
        try:
            mine, limit = self._generations.values(), self._settings.commit_timeout
            self.unsaved = await commit_at_last(self.pipeline.group, partial(self._commit, mine), mine, limit)
            await self._topics.mark()
            with contextlib.suppress(TransportError):  # it had not come as far as to know its lag
                self._last = self.status()
        finally:
            if not await self._runner.close():
                logger.warning("%s: some handlers do not end although they were cancelled", self.pipeline.group)
            self._close(self._generations)
            await self._rescue.finish(max(0.0, (self._drained_by or 0.0) - self._loop.time()))
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
            before, enough = self._settled_at_commit, self._settings.commit_every
            if self._accepted - before >= enough <= self._settled - before:
                self._commit_wanted.set()
        self._note_stop()

    def _note_stop(self) -> None:
        if self.stopped is None and self._runner.stopped.done():
            self.stopped = self._runner.stopped.result()
            logger.error("%s stopped: %s", self.pipeline.group, self.stopped)

    async def _fetch(self) -> list[Fetched]:
        flow = self._flow
        if (flow.held and not flow.ready) or flow.is_exhausted or self._runner.supply >= FETCH_RECORDS:
            # Wait for handlers instead of the broker: nothing has room, or what they could start is there already, and more
            # of it would only be cold by the time its turn comes. But give the group machinery its turn.
            if await self._runner.eased(EASE_WAIT):
                return []
            return await self._consumer.fetch((), max_records=0, timeout=0.0)
        wait = SHORT_WAIT if flow.held else FETCH_WAIT if self._generations else UNASSIGNED_WAIT
        try:
            async with asyncio.timeout(self._settings.stall_timeout or None):
                return await self._consumer.fetch(
                    flow.ready, max_records=flow.records, max_bytes=flow.bytes, timeout=wait
                )
        except TimeoutError as error:
            raise ConnectionFailed(
                f"a fetch of {wait:g} s did not come back for {self._settings.stall_timeout:g} s"
            ) from error

    def _accept(self, fetched: Fetched) -> None:
        generation = self._generations.get(fetched.partition)
        if generation is None or not generation.is_open or generation.is_outdated:
            return
        match fetched:
            case Chunk(_, records, next_offset, size_bytes, large):
                if isinstance(records, Unread):
                    records.report = partial(self._refuse, generation)
                self._accepted += len(records)
                self._runner.submit(generation, records, next_offset, size_bytes - sum(large.values()))
                generation.large.update(large)
                self._flow.busy.add(generation)
                self._uncommitted.add(generation)
            case Unreadable(_, (TopicNotFound() | OffsetOutOfRange()) as error):
                self._topics.doubt(generation, error)
                self._commit_wanted.set()
            case Unreadable(_, error):
                self._refuse(generation, error)

    def _refuse(self, generation: Generation, error: TransportError) -> None:
        """Read no more of a partition that cannot be read on."""
        if generation.is_open:
            self._flow.refuse(generation.partition, error)
            say_unreadable(self.pipeline.group, [generation.partition], error)

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
                if generation.counts and (generation.ledger.in_flight or generation.has_progress)
            }
            await self._tend_topics()

    async def _commit(self, generations: Iterable[Generation]) -> TransportError | None:
        """Store what is settled; return what went wrong. That is not final: the next commit brings the same or a higher offset."""
        async with self._committing:
            self._settled_at_commit = self._settled
            due = [generation for generation in generations if generation.counts and generation.has_progress]
            if not due:
                self._commits.succeed(self._loop.time())
                return None
            try:
                async with asyncio.timeout(self._settings.commit_timeout):
                    due = await self._topics.same(due)
                    ahead = [generation.ledger.ahead for generation in due]
                    offsets = {
                        each.partition: Commit(each.ledger.committable, metadata_of(each.ledger, each.topic_id))
                        for each in due
                    }
                    if offsets:
                        await self._consumer.commit(offsets)
            except PartitionLost as error:
                logger.info("%s: not committed, the group has moved on: %s", self.pipeline.group, error)
            except (TransportError, TimeoutError) as error:
                return self._commits.fail(error, self.outlook, self._loop.time())
            else:
                self._commits.succeed(self._loop.time())
                for generation, count in zip(due, ahead, strict=True):
                    generation.note_committed(offsets[generation.partition].offset, count)
        return None

    # ── topics that are made again ────────────────────────────────────────────────────────────────────────────────

    async def _tend_topics(self) -> None:
        """Look after topics, and begin those anew that were made again, if they are to be read."""
        await self._topics.tend()
        self._rescue.tend(self._topics.outdated)
        if self._known.recreated == "earliest":
            latest = self._loop.time() - self._settings.drain_timeout
            outdated = self._topics.outdated.items()
            await self._begin_anew([each for each, at in outdated if self._is_idle(each) or at <= latest])

    def _is_idle(self, generation: Generation) -> bool:
        """Whether everything that was read of a partition is finished."""
        return not generation.ledger.in_flight

    async def _begin_anew(self, outdated: Collection[Generation]) -> None:
        """Give partitions back to ourselves: they begin as if they had just been assigned."""
        if not outdated:
            return
        async with self._changing:
            partitions = [each.partition for each in outdated if self._generations.get(each.partition) is each]
            try:
                await self._consumer.offsets(partitions, "earliest")
            except TransportError as error:
                # The new topic has fewer partitions, or is gone as well: the group will say what is ours.
                logger.debug("%s: not begun anew: %s", self.pipeline.group, error)
                return
            self._close(partitions)
            await self._begin(partitions)

    # ── the group's decisions (AssignmentListener) ────────────────────────────────────────────────────────────────

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Begin to read partitions."""
        if partitions:
            async with self._changing:
                await self._begin(partitions)

    async def _begin(self, partitions: Collection[TopicPartition]) -> None:
        self._rests_since = self.waits_for = None
        try:
            beginnings = await self._starts.find(partitions, self._epoch + self._loop.time())
        except TopicNotFound as error:  # it went just now: without it there is something else to be given
            raise TransportError(str(error), retryable=True) from error
        for partition, beginning in beginnings.items():
            offset, metadata = beginning.commit
            generation = self._runner.open(partition, offset, decode_map(offset, without_topic_id(metadata)))
            generation.topic_id = beginning.topic_id
            if beginning.is_stored:
                generation.note_committed(offset)
            self._generations[partition] = generation
            self._uncommitted.add(generation)
            self._flow.open(partition)
        outdated = {self._generations[each]: new.there for each, new in beginnings.items() if new.is_outdated}
        self._topics.take_out(outdated, is_marked=True)
        if read := sorted(each for each, beginning in beginnings.items() if not beginning.is_outdated):
            logger.info("%s reads %s", self.pipeline.group, ", ".join(map(str, read)))

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Let what runs finish within the budget, commit, and let go."""
        async with self._changing:
            await self._give_back(partitions)

    async def _give_back(self, partitions: Collection[TopicPartition]) -> None:
        leaving = [generation for partition in partitions if (generation := self._generations.get(partition))]
        self._flow.ready.difference_update(partitions)
        # Where we are about to leave, handlers have what they were told.
        until = max(self._loop.time() + self._settings.revoke_budget, self._drained_by or 0.0)
        await self._rescue.before_drain(leaving, self._settings.revoke_budget / 2)
        if not await self._runner.drain(leaving, max(0.0, until - self._loop.time())):
            text = "%s: some handlers outlast the rebalance; their records go to the new owner"
            logger.warning(text, self.pipeline.group)
        await self._commit(leaving)
        await self._topics.mark()
        self._close(partitions)

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        """Forget them: somebody else has them, so nothing may be committed."""
        level = logging.WARNING if self.outlook.trouble is None else logging.INFO  # an outage explains it
        async with self._changing:
            logger.log(level, "%s lost %s", self.pipeline.group, ", ".join(map(str, sorted(partitions))))
            self._close(partitions)

    def _close(self, partitions: Iterable[TopicPartition]) -> None:
        leaving = []
        for partition in [*partitions]:
            generation = self._generations.pop(partition, None)
            self._flow.close(partition, generation)
            if generation is not None:
                self._uncommitted.discard(generation)
                self._topics.forget(generation, is_kept=self._rescue.keep(generation))
                self._totals.add(generation)
                leaving.append(generation)
        self._runner.revoke(leaving)
        if not self._generations:
            self._rests_since = self._loop.time()

    # ── being watched ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """What it reads now."""
        return self._generations.keys()

    @property
    def rests_since(self) -> float | None:
        """Since when, in loop time, no partition is ours although we have asked; None while one is, and in the end."""
        return None if self.stopped or self.failure else self._rests_since

    @property
    def runner(self) -> Runner:
        """What runs the handlers."""
        return self._runner

    @property
    def _settled(self) -> int:
        return self._totals.settled + sum([each.written.settled_count for each in self._generations.values()])

    def _lags(self) -> dict[str, int | None]:
        """Records between the committable offsets and the ends; None while an end is not known, or not any more."""
        return {
            str(partition): self.outlook.lag(partition, self._consumer.end_offset(partition), generation.done_before)
            for partition, generation in self._generations.items()
        }

    async def reach(self) -> None:
        """Ask the broker something small, to see that it answers.

        Raises:
            TransportError: It does not.
        """
        if partitions := [*self._generations][:1] or [*self._consumer.known_partitions()][:1]:
            await self._consumer.offsets(partitions, "latest")

    async def is_caught_up(self) -> bool:
        """Ask the broker whether everything published until now is settled, as far as it can be read."""
        generations = {**self._generations}
        if not generations:
            return False
        readable = generations.keys() - self._flow.unreadable.keys()
        ends = await self._consumer.offsets(readable, "latest") if readable else {}
        return all(self._is_settled(generation, ends.get(partition)) for partition, generation in generations.items())

    def _is_settled(self, generation: Generation, end: int | None) -> bool:
        begins_anew = generation.is_outdated and self._known.recreated != "stop"
        return generation.is_open and not begins_anew and self._is_through(generation, end)

    def _is_through(self, generation: Generation, end: int | None) -> bool:
        """Tell whether everything before `end` is settled; None for everything that could be read."""
        return self._reached(generation) >= (generation.ledger.position if end is None else end)

    def _reached(self, generation: Generation) -> int:
        """Return the offset before which nothing is left to do now; deferred records that wait are for later."""
        waiting = self.pipeline.waiting
        if waiting and waiting == sum(each.ledger.in_flight for each in self._generations.values()):
            return generation.ledger.position
        return generation.ledger.committable

    @property
    def counts(self) -> Totals:
        """What became of records, since the start of the process."""
        return self.earlier.plus(self._totals).with_open(self._generations.values())

    def status(self) -> GroupStatus:
        """Return a snapshot for people and health checks; once it has left its group, how it left."""
        stopped, failure = (str(cause) if cause else None for cause in (self.stopped, self.failure))
        since_fetch, since_commit = (self._loop.time() - moment for moment in (self._fetched_at, self._commits.at))
        if self._last is not None:
            return msgspec.structs.replace(
                self._last,
                stopped=stopped,
                failure=failure,
                since_fetch=since_fetch,
                since_commit=since_commit,
                stranded=len(self.pipeline.stranded),
            )
        totals, lags = self.counts, self._lags()
        return GroupStatus(
            group=self.pipeline.group,
            handlers=self.pipeline.handlers,
            partitions=tuple(sorted(self._generations)),
            stopped=stopped,
            failure=failure,
            waits_for=self.waits_for,
            since_join=None if self._joined_at is None else self._loop.time() - self._joined_at,
            unreadable={str(each): str(error) for each, error in sorted(self._flow.unreadable.items())},
            silent={str(each): why for each, why in self.outlook.silent.items() if each in self._generations},
            settled=totals.settled,
            skipped=totals.skipped,
            retried=totals.retried,
            dead=totals.buried,
            deferred=totals.deferred,
            in_flight=sum(generation.ledger.in_flight for generation in self._generations.values()),
            running=len(self._runner.running),
            delayed=self._runner.delayed,
            stranded=len(self.pipeline.stranded),
            lag=total_lag(lags),
            lags=lags,
            since_fetch=since_fetch,
            since_commit=since_commit,
            commit_error=str(self._commits.error) if self._commits.error else None,
        )
