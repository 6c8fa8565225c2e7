"""One consumer group in this process: fetch, submit, commit; take and give back partitions.

Fetching, handling and committing run side by side and meet in the ledgers of the assignments. The order in which a
record becomes final: outputs acknowledged → dead letter acknowledged → settled → committed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable
from functools import partial

from octopus.config import WorkerSettings
from octopus.errors import (
    HandlerStopped,
    OctopusError,
    OffsetOutOfRange,
    TopicNotFound,
    TransportError,
)
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.pipeline import Pipeline
from octopus.retrying import RetryPipeline
from octopus.runner import Assignment, Runner
from octopus.runner.commit_metadata import decode_map, without_topic_id
from octopus.transports.base import Chunk, Consumer, Fetched, Unreadable
from octopus.types import RunClaim
from octopus.unacknowledged import Unacknowledged
from octopus.unread import Unread
from octopus.worker.commits import CommitContext, Commits, MakeCommits, PlainCommits
from octopus.worker.committing import CommitHealth
from octopus.worker.endings import commit_at_last, finish_running
from octopus.worker.fetching import Fetching
from octopus.worker.intake import Intake
from octopus.worker.known_topics import KnownTopics
from octopus.worker.outlook import Outlook
from octopus.worker.progress import Progress
from octopus.worker.rescue import NoRescue, Rescue
from octopus.worker.snapshots import Snapshots
from octopus.worker.starts import Starts
from octopus.worker.status import GroupStatus, Totals
from octopus.worker.topic_watch import TopicWatch, say_unreadable

logger = get_logger("octopus.worker")

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
        outlook: What is known of the broker, kept up to date elsewhere.
        commits: Makes what stores the group's progress: plain commits, or transactions.

    Attributes:
        stopped: Why processing stopped, or None.
        failure: What the consumer broke with, or None.
        unsaved: Why what was finished at the end could not be committed, or None.
        outlook: What is known of the broker.
        waits_for: The members for which the group waits before it assigns partitions again, or None.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        consumer: Consumer,
        settings: WorkerSettings,
        now: float,
        known: KnownTopics | None = None,
        outlook: Outlook | None = None,
        commits: MakeCommits = PlainCommits,
    ) -> None:
        self.pipeline = pipeline
        self.stopped: HandlerStopped | None = None
        self.failure: OctopusError | None = None
        self.unsaved: TransportError | None = None
        self.outlook = outlook or Outlook()
        self.waits_for: str | None = None
        self._joined_at: float | None = None
        self._rests_since: float | None = None  # loop time
        self._consumer = consumer
        self._settings = settings
        self._epoch = now - asyncio.get_running_loop().time()
        self._outputs = pipeline.outputs_in_flight(settings.in_flight_bytes // 2)
        self._runner = Runner(
            self,
            ordering=pipeline.ordering,
            concurrency=pipeline.concurrency,
            batch=pipeline.batch,
            within=pipeline.within,
            publications=self._outputs.publications,
        )
        self._loop = asyncio.get_running_loop()
        self._assignments: dict[TopicPartition, Assignment] = {}
        self._changing = asyncio.Lock()  # which partitions are ours, and where they are read
        self._known = known or KnownTopics()
        self._starts = Starts(pipeline.group, consumer, self._known, pipeline.start)
        self._commit_wanted = asyncio.Event()
        self._accepted = 0  # records, from the start
        self._settled_at_commit = 0
        self._drained_by: float | None = None
        self._fetched_at = self._loop.time()
        self._health = CommitHealth(pipeline.group, self._fetched_at)
        self._intake = Intake(
            settings,
            pipeline.batch,
            is_full=self._is_full,
            flush_batch=self._runner.flush_batch,
            published=self._outputs.size,
            now=self._fetched_at,
        )
        self._fetching = Fetching(consumer, self._intake, self._runner, settings)
        self._rescue = (
            Rescue(pipeline, self._runner, consumer, settings.commit_timeout)
            if isinstance(pipeline, RetryPipeline)
            else NoRescue()
        )
        self._topics = TopicWatch(
            pipeline.group,
            consumer,
            self._known,
            self._starts,
            self._intake,
            self._assignments,
            patience=settings.commit_timeout,
            clock=self._clock,
        )
        self._commits: Commits = commits(
            CommitContext(
                pipeline,
                consumer,
                settings,
                self._assignments,
                self._topics,
                self._health,
                self.outlook,
                self._outputs,
            )
        )
        self._progress = Progress(
            pipeline, consumer, self._assignments, self._intake, self._known, self._commits, self.outlook
        )
        self._snapshots = Snapshots(
            pipeline,
            self._runner,
            self._assignments,
            self._intake,
            self._progress,
            self._health,
            self._rescue,
            self.outlook,
        )

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the compiled road for the records of one partition."""
        return self._commits.bind(partition, unacknowledged)

    def _is_full(self, assignment: Assignment) -> bool:
        return self._commits.is_full(assignment)

    def _clock(self) -> float:
        """Return seconds since the epoch."""
        return self._epoch + self._loop.time()

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
            held, limit = self._assignments.values(), self._settings.drain_timeout
            self._drained_by = self._loop.time() + limit
            try:
                await finish_running(self.pipeline.group, self._runner, held, self._rescue, committer, limit)
                self._note_stop()
            finally:  # a second cancellation cuts the drain short, not the leaving
                try:
                    await self._leave()
                finally:
                    await self._commits.finish()

    async def _leave(self) -> None:
        try:
            mine, limit = self._assignments.values(), self._settings.commit_timeout
            self.unsaved = await commit_at_last(self.pipeline.group, partial(self._commit, mine), mine, limit)
            await self._topics.mark()
            with contextlib.suppress(TransportError):  # it had not come as far as to know its lag
                self._snapshots.keep(self.status())
        finally:
            if not await self._runner.close():
                logger.warning("%s: some handlers do not end although they were cancelled", self.pipeline.group)
            self._close(self._assignments)
            await self._outputs.close()
            await self._rescue.finish(max(0.0, (self._drained_by or 0.0) - self._loop.time()))
            await self._consumer.stop()

    # ── fetch and submit ──────────────────────────────────────────────────────────────────────────────────────────

    async def _consume(self, committer: asyncio.Task[None]) -> None:
        while not self._runner.stopped.done():
            if committer.done():
                committer.result()  # raises: what settles must not pile up uncommitted in silence
            self._intake.balance()
            arrived = await self._fetching.fetch(is_assigned=bool(self._assignments))
            for fetched in arrived:
                self._accept(fetched)
            self._fetched_at = self._loop.time()
            if arrived:
                self._intake.end_turn(self._fetched_at, is_quick=not self._runner.suspends)
            before, enough = self._settled_at_commit, self._settings.commit_every
            if self._accepted - before >= enough <= self._progress.settled - before:
                self._commit_wanted.set()
        self._note_stop()

    def _note_stop(self) -> None:
        if self.stopped is None and self._runner.stopped.done():
            self.stopped = self._runner.stopped.result()
            logger.error("%s stopped: %s", self.pipeline.group, self.stopped)

    def _accept(self, fetched: Fetched) -> None:
        assignment = self._assignments.get(fetched.partition)
        if assignment is None or not assignment.is_open or assignment.is_outdated:
            return
        match fetched:
            case Chunk(_, records, next_offset, size_bytes, large):
                if isinstance(records, Unread):
                    records.report = partial(self._refuse, assignment)
                self._accepted += len(records)
                assignment.large.update(large)
                self._runner.submit(assignment, records, next_offset, size_bytes - sum(large.values()))
                self._intake.busy.add(assignment)
                self._commits.expect(assignment)
            case Unreadable(_, (TopicNotFound() | OffsetOutOfRange()) as error):
                self._topics.doubt(assignment, error)
                self._commit_wanted.set()
            case Unreadable(_, error):
                self._refuse(assignment, error)

    def _refuse(self, assignment: Assignment, error: TransportError) -> None:
        """Read no more of a partition that cannot be read on."""
        if assignment.is_open:
            self._intake.refuse(assignment.partition, error)
            say_unreadable(self.pipeline.group, [assignment.partition], error)

    # ── commit ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit_regularly(self) -> None:
        interval = max(self._commits.interval, SHORTEST_COMMIT_INTERVAL)
        while True:
            try:
                async with asyncio.timeout(interval):
                    await self._commit_wanted.wait()
            except TimeoutError:
                pass
            self._commit_wanted.clear()
            for assignment in self._intake.busy:
                assignment.lanes.stand_alone()  # what has waited up to now may wait for long
            self._settled_at_commit = self._progress.settled
            try:
                await self._commits.commit_due()
            except HandlerStopped as error:
                self.stopped = error
                raise
            if self._joined_at is not None:  # else no broker can be asked: the consumer still looks for one
                await self._tend_topics()

    async def _commit(self, assignments: Iterable[Assignment]) -> TransportError | None:
        """Commit before assignments are given back; return what went wrong."""
        try:
            return await self._commits.commit(assignments)
        except HandlerStopped as error:
            self.stopped = self.stopped or error
            return None

    # ── topics that are made again ────────────────────────────────────────────────────────────────────────────────

    async def _tend_topics(self) -> None:
        """Look after topics, and begin those anew that were made again, if they are to be read."""
        await self._topics.tend()
        self._rescue.tend(self._topics.outdated)
        if self._known.recreated == "earliest":
            latest = self._loop.time() - self._settings.drain_timeout
            await self._begin_anew(
                [each for each, at in self._topics.outdated.items() if self._is_idle(each) or at <= latest]
            )

    def _is_idle(self, assignment: Assignment) -> bool:
        """Tell whether everything that was read of a partition is finished, and what it publishes is visible."""
        return not assignment.ledger.in_flight and self._commits.is_published(assignment)

    async def _begin_anew(self, outdated: Collection[Assignment]) -> None:
        """Give partitions back to ourselves: they begin as if they had just been assigned."""
        if not outdated:
            return
        async with self._changing:
            partitions = [each.partition for each in outdated if self._assignments.get(each.partition) is each]
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
        await self._commits.begin(partitions)
        self._rests_since = self.waits_for = None
        try:
            beginnings = await self._starts.find(partitions, self._clock())
        except TopicNotFound as error:  # it went just now: without it there is something else to be given
            raise TransportError(str(error), retryable=True) from error
        for partition, beginning in beginnings.items():
            offset, metadata = beginning.commit
            assignment = self._runner.open(partition, offset, decode_map(offset, without_topic_id(metadata)))
            assignment.topic_id = beginning.topic_id
            if beginning.is_stored:
                assignment.note_committed(offset)
            self._assignments[partition] = assignment
            self._commits.open(assignment)
            self._intake.open(partition)
        outdated = {self._assignments[each]: new.there for each, new in beginnings.items() if new.is_outdated}
        self._topics.take_out(outdated, is_marked=True)
        if read := sorted(each for each, beginning in beginnings.items() if not beginning.is_outdated):
            logger.info("%s reads %s", self.pipeline.group, ", ".join(map(str, read)))

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Let what runs finish within the budget, commit, and let go."""
        async with self._changing:
            await self._give_back(partitions)

    async def _give_back(self, partitions: Collection[TopicPartition]) -> None:
        leaving = [assignment for partition in partitions if (assignment := self._assignments.get(partition))]
        self._intake.ready.difference_update(partitions)
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
        """Forget them: another member has them, so nothing may be committed."""
        level = logging.WARNING if self.outlook.trouble is None else logging.INFO  # an outage explains it
        async with self._changing:
            logger.log(level, "%s lost %s", self.pipeline.group, ", ".join(map(str, sorted(partitions))))
            # What the next owner had read before the topic went runs twice, which is better than never.
            leaving = [assignment for partition in partitions if (assignment := self._assignments.get(partition))]
            await self._rescue.before_drain(leaving, self._settings.revoke_budget / 2)
            self._close(partitions)

    def _close(self, partitions: Iterable[TopicPartition]) -> None:
        partitions, leaving = [*partitions], []
        for partition in partitions:
            assignment = self._assignments.pop(partition, None)
            self._intake.close(partition, assignment)
            if assignment is not None:
                self._topics.forget(assignment, is_kept=self._rescue.keep(assignment))
                self._progress.close(assignment)
                leaving.append(assignment)
        self._runner.revoke(leaving)
        self._commits.close(partitions, leaving)
        if not self._assignments:
            self._rests_since = self._loop.time()

    # ── being watched ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def partitions(self) -> Collection[TopicPartition]:
        """What it reads now."""
        return self._assignments.keys()

    @property
    def rests_since(self) -> float | None:
        """Since when, in loop time, no partition is ours although we have asked; None while one is, and in the end."""
        return None if self.stopped or self.failure else self._rests_since

    @property
    def runner(self) -> Runner:
        """What runs the handlers."""
        return self._runner

    async def ping(self) -> None:
        """Ask the broker something small, to see that it answers.

        Raises:
            TransportError: It does not.
        """
        if partitions := [*self._assignments][:1] or [*self._consumer.known_partitions()][:1]:
            await self._consumer.offsets(partitions, "latest")

    async def is_caught_up(self) -> bool:
        """Ask the broker whether everything published until now is settled, as far as it can be read."""
        return await self._progress.is_caught_up()

    @property
    def counts(self) -> Totals:
        """What became of records, since the start of the process."""
        return self._progress.counts

    def continue_from(self, counts: Totals) -> None:
        """Count on from what the workers counted that the group had before."""
        self._progress.earlier = counts

    def status(self) -> GroupStatus:
        """Return a snapshot for people and health checks; once it has left its group, how it left."""
        return self._snapshots.take(
            self._loop.time(),
            stopped=self.stopped,
            failure=self.failure,
            waits_for=self.waits_for,
            joined_at=self._joined_at,
            fetched_at=self._fetched_at,
        )
