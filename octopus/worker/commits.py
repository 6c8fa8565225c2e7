"""How a group stores its progress. `PlainCommits` commits offsets; `TransactionalCommits` commits outputs and offsets together.

Invariants of both, at every commit:

- Every record before the offset that is stored for a partition is settled, and so is what the map beside it names.
- Only an assignment that counts is committed for: one that is open, and whose topic is the one that was read.
- `assignment.committed` is what the broker has stored, as far as it has answered; without an answer it stays behind.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from octopus.config import WorkerSettings
from octopus.errors import PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.pipeline import Pipeline
from octopus.pipeline.attempts import AssignedOutputs
from octopus.pipeline.in_flight import OutputsInFlight
from octopus.runner import Assignment
from octopus.runner.commit_metadata import metadata_of
from octopus.transports.base import Commit, Consumer
from octopus.types import RunClaim
from octopus.unacknowledged import Unacknowledged
from octopus.worker.committing import CommitHealth
from octopus.worker.outlook import Outlook
from octopus.worker.topic_watch import TopicWatch

logger = get_logger("octopus.worker")


@dataclass(frozen=True, slots=True)
class CommitContext:
    """What commits need of their group.

    Attributes:
        pipeline: What runs.
        consumer: The group member.
        settings: Limits and intervals.
        assignments: Those that the group has now.
        topics: Tells which topics are still the ones that were read.
        health: Hears how commits fare.
        outlook: What is known of the broker.
        outputs: Takes what handlers publish until it is acknowledged; not with transactions.
    """

    pipeline: Pipeline
    consumer: Consumer
    settings: WorkerSettings
    assignments: Mapping[TopicPartition, Assignment]
    topics: TopicWatch
    health: CommitHealth
    outlook: Outlook
    outputs: OutputsInFlight


class Commits(Protocol):
    """Stores what is settled in the assignments of one group."""

    @property
    def interval(self) -> float:
        """Seconds between two commits."""
        ...

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the compiled road for the records of one partition; arguments as `Bindable.bind`."""
        ...

    async def begin(self, partitions: Collection[TopicPartition]) -> None:
        """Get ready for partitions, before their committed offsets are read.

        Raises:
            TransportError: The broker does not let us.
        """
        ...

    def open(self, assignment: Assignment) -> None:
        """Commit for an assignment from now on."""
        ...

    def expect(self, assignment: Assignment) -> None:
        """Note that an assignment may have something to commit soon."""
        ...

    async def commit_due(self) -> None:
        """Commit what is due. What fails and can be repeated is repeated by the next call.

        Raises:
            TransportError: A new member has to begin from what is committed.
            HandlerStopped: Outputs can never be stored.
        """
        ...

    async def commit(self, assignments: Iterable[Assignment]) -> TransportError | None:
        """Commit what assignments have that are about to be given back; return what went wrong.

        Raises:
            HandlerStopped: Outputs can never be stored.
        """
        ...

    def is_full(self, assignment: Assignment) -> bool:
        """Tell whether an assignment has no room for records before the next commit."""
        ...

    def is_published(self, assignment: Assignment) -> bool:
        """Tell whether no output of an assignment waits for a commit."""
        ...

    def is_visible(self, assignment: Assignment) -> bool:
        """Tell whether others see all outputs of what is settled."""
        ...

    def close(self, partitions: Collection[TopicPartition], assignments: Collection[Assignment]) -> None:
        """Forget partitions, with the assignments that were opened of them."""
        ...

    async def finish(self) -> None:
        """Wait for what is under way; nothing is committed any more."""
        ...


MakeCommits = Callable[[CommitContext], Commits]
"""Makes the commits of a group."""


class PlainCommits:
    """Commits offsets, each with the map of what is settled beyond it: at least once.

    A commit that fails is not final: the next one brings the same or a higher offset.
    """

    def __init__(self, context: CommitContext) -> None:
        self._context = context
        self._committing = asyncio.Lock()
        self._uncommitted: set[Assignment] = set()  # may have something to commit
        self._loop = asyncio.get_running_loop()

    @property
    def interval(self) -> float:
        """Seconds between two commits."""
        return self._context.settings.commit_interval

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the compiled road for the records of one partition."""
        outputs = AssignedOutputs(self._context.outputs, unacknowledged)
        return self._context.pipeline.bind(partition, outputs=outputs)

    async def begin(self, partitions: Collection[TopicPartition]) -> None:
        """Do nothing: a commit of a former owner is refused by its generation."""

    def open(self, assignment: Assignment) -> None:
        """Commit for an assignment from now on."""
        self._uncommitted.add(assignment)

    def expect(self, assignment: Assignment) -> None:
        """Note that an assignment may have something to commit soon."""
        self._uncommitted.add(assignment)

    async def commit_due(self) -> None:
        """Commit what is settled."""
        await self.commit(self._uncommitted)
        self._uncommitted = {
            assignment
            for assignment in self._uncommitted
            if assignment.counts and (assignment.ledger.in_flight or assignment.has_progress)
        }

    async def commit(self, assignments: Iterable[Assignment]) -> TransportError | None:
        """Store what is settled; return what went wrong."""
        context = self._context
        async with self._committing:
            due = [assignment for assignment in assignments if assignment.counts and assignment.has_progress]
            if not due:
                context.health.succeed(self._loop.time())
                return None
            try:
                async with asyncio.timeout(context.settings.commit_timeout):
                    due = await context.topics.same(due)
                    ahead = [assignment.ledger.ahead for assignment in due]
                    offsets = {
                        each.partition: Commit(each.ledger.committable, metadata_of(each.ledger, each.topic_id))
                        for each in due
                    }
                    if offsets:
                        await context.consumer.commit(offsets)
            except PartitionLost as error:
                logger.info("%s: not committed, the group has moved on: %s", context.pipeline.group, error)
            except (TransportError, TimeoutError) as error:
                return context.health.fail(error, context.outlook, self._loop.time())
            else:
                context.health.succeed(self._loop.time())
                for assignment, count in zip(due, ahead, strict=True):
                    assignment.note_committed(offsets[assignment.partition].offset, count)
        return None

    def is_full(self, assignment: Assignment) -> bool:
        """Return False: nothing waits for a commit but a number."""
        return False

    def is_published(self, assignment: Assignment) -> bool:
        """Return True: outputs are acknowledged before their record settles."""
        return True

    def is_visible(self, assignment: Assignment) -> bool:
        """Return True: outputs are acknowledged before their record settles."""
        return True

    def close(self, partitions: Collection[TopicPartition], assignments: Collection[Assignment]) -> None:
        """Forget assignments."""
        self._uncommitted.difference_update(assignments)

    async def finish(self) -> None:
        """Do nothing: nothing is under way."""
