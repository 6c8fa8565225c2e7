"""Commits of a consumer group whose outputs and offsets share transactions: `delivery="exactly_once"`.

Every partition has a transactional producer of its own, whose transactional id is `group/topic/partition`. Starting one
fences the partition's former owner and ends what that left open; only then are the committed offsets read. So at any
moment one process at most can commit for a partition, also if it is wrong about its membership: a frozen owner that
thaws, a commit that is late, a network that heals. Kafka's alternative, the group's generation in the offset commit
(KIP-447), needs requests that the client library does not speak.

A transaction is open only while it is written. Handlers run outside of it; what they publish waits in an `Outbox` until
their record settles. A transaction takes outbox and ledger at one moment, so they agree.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeVar

from octopus.errors import (
    ConnectionFailed,
    NotAuthorized,
    PartitionLost,
    RecordRefused,
    RecordTooLarge,
    TopicNotFound,
    TransportError,
)
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.pipeline.outputs import Contribution, Outbox
from octopus.runner import Assignment
from octopus.runner.commit_metadata import map_limit, with_topic_id
from octopus.transports.base import Commit, Outgoing, TransactionalProducer
from octopus.transports.topic_queue import MENDS, Mend
from octopus.types import RunClaim
from octopus.unacknowledged import Unacknowledged
from octopus.worker.commits import CommitContext
from octopus.worker.plans import Plan, plan_transaction

logger = get_logger("octopus.worker")

T = TypeVar("T")

REFUSED = (RecordTooLarge, RecordRefused, NotAuthorized, TopicNotFound)
"""What a broker says about a message, and will say again."""

MAX_WAITING_BYTES = 16 * 2**20
"""Outputs of a partition that wait for a transaction before its records wait, too."""

START_TIMEOUT = 30.0
"""Seconds in which producers have to start; a predecessor's transaction may still have to be ended."""

MakeProducer = Callable[[str], TransactionalProducer]
"""Makes a producer from its transactional id."""


class PartitionTransactions:
    """The transactions of one assignment of one partition.

    After a failure it is finished: nothing is known about the transaction, and what its outbox held is gone. The records
    come again from the committed offset, through another assignment.

    Args:
        group: Consumer group.
        partition: Which one.
        producer: Its own.
        now: In loop time.
        mend: Makes topics again that have vanished, and raises their limits.

    Attributes:
        outbox: What waits.
        ended_at: When the last transaction ended, in loop time.
    """

    def __init__(
        self, group: str, partition: TopicPartition, producer: TransactionalProducer, now: float, mend: Mend
    ) -> None:
        self.outbox = Outbox(partition)
        self.ended_at = now
        self._group = group
        self._partition = partition
        self._producer = producer
        self._mend = mend
        self._committed_ahead: Sequence[tuple[int, int]] = []
        self._running: asyncio.Task[bool] | None = None
        self._failure: BaseException | None = None

    async def start(self) -> None:
        """Fence the partition's former owner and end its transaction."""
        await self._producer.start()

    async def stop(self, grace: float) -> None:
        """Close, after at most `grace` seconds for the transaction that is under way. The next owner ends what is left."""
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running], timeout=grace)
            self._running.cancel()
        try:
            await self._producer.stop()
        except TransportError as error:
            logger.debug("%s: closing the producer of %s: %s", self._group, self._partition, error)

    async def commit(self, assignment: Assignment) -> bool:
        """Publish what waits and store what is settled, all or nothing.

        Cancelling it leaves the transaction alone; the next call waits for it.

        Returns:
            Whether that is done, if there was anything to do. If not, the topic is not there: what waits still does, and the caller
            should see first what became of the topic.

        Raises:
            TransportError: The outcome is unknown, or the partition has another owner.
            HandlerStopped: The broker refuses outputs for good, and there is no place for dead letters.
        """
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        if self._failure is not None:
            raise PartitionLost(f"an earlier transaction of {self._partition} failed") from self._failure
        plan = None
        if assignment.is_open and assignment.has_progress:
            plan = plan_transaction(
                assignment.ledger,
                self.outbox,
                assignment.committed,
                self._committed_ahead,
                map_limit=map_limit(assignment.topic_id),
            )
        if plan is not None:
            self._running = asyncio.create_task(self._transact(assignment, plan), name=f"octopus {self._partition}")
            self._running.add_done_callback(_note_end)
            return await asyncio.shield(self._running)
        return True

    def note_start(self, assignment: Assignment) -> None:
        """Remember what is settled beyond the committed offset, as the commit's metadata says."""
        self._committed_ahead = assignment.ledger.settled_ahead()

    async def _transact(self, assignment: Assignment, plan: Plan) -> bool:
        try:
            written = await self._write(plan.outputs)
            # Of a topic that was made again offsets mean nothing any more, and its records cannot come again.
            if not (assignment.is_outdated or await self._send_offsets(plan.commit, assignment.topic_id)):
                await self._producer.abort()
                # Not dropped: if the topic was deleted, these records cannot be read again.
                self.outbox.put_back(written)
                return False
            await self._producer.commit()
        except BaseException as error:
            self._failure = error
            raise
        self._committed_ahead = plan.ahead
        self.ended_at = asyncio.get_running_loop().time()
        assignment.note_committed(plan.commit.offset, plan.ahead_count)
        return True

    async def _send_offsets(self, commit: Commit, topic_id: str | None) -> bool:
        """Make the offset part of the transaction; tell whether the topic is there, which was seen a while ago."""
        commit = commit._replace(metadata=with_topic_id(commit.metadata, topic_id))
        try:
            await self._producer.send_offsets(self._group, {self._partition: commit})
        except TopicNotFound:
            return False
        return True

    async def _write(self, outputs: list[Contribution]) -> list[Contribution]:
        """Begin a transaction and write the outputs, with dead letters in the place of those that the broker refuses."""
        refusals = Counter[type[TransportError]]()
        while await self._refusal(outputs, refusals) is not None:
            outputs = await self._without_refused(outputs)
        return outputs

    async def _refusal(
        self, outputs: Sequence[Contribution], refusals: Counter[type[TransportError]]
    ) -> TransportError | None:
        """Begin a transaction and write the outputs; where the broker refuses that, mended as it may be, abort it and return why.

        Args:
            outputs: What to write.
            refusals: How often each kind of refusal has come up so far.
        """
        while True:
            try:
                await self._try(outputs)
            except REFUSED as error:
                await self._producer.abort()
                if not await self._is_mended(error, outputs, refusals):
                    return error
            else:
                return None

    async def _is_mended(
        self, error: TransportError, outputs: Sequence[Contribution], refusals: Counter[type[TransportError]]
    ) -> bool:
        """Do something about a refusal, unless that was done often enough; tell whether the broker may take the same outputs now."""
        refusals[type(error)] += 1
        number = refusals[type(error)]
        messages = [message for each in outputs for message in each.messages]
        return number <= MENDS and await self._mend(error, not_stored(messages, error), number)

    async def _try(self, outputs: Sequence[Contribution]) -> None:
        await self._producer.begin()
        messages = [message for each in outputs for message in each.messages]
        if messages:
            await self._producer.send_many(messages)

    async def _without_refused(self, outputs: list[Contribution]) -> list[Contribution]:
        """Find by halves whose messages are refused, in transactions that are aborted, and replace those."""
        if len(outputs) > 1:
            middle = len(outputs) // 2
            kept = []
            for half in (outputs[:middle], outputs[middle:]):
                try:
                    await self._try(half)
                except REFUSED:
                    await self._producer.abort()
                    kept += await self._without_refused(half)
                else:
                    await self._producer.abort()
                    kept += half
            return kept
        (single,) = outputs
        # Mended here, too: its topic may have vanished just now, which is no reason to give the event up.
        refusal = await self._refusal(outputs, Counter())
        if refusal is not None:
            return [await single.refuse(refusal)]
        await self._producer.abort()
        return outputs


def not_stored(messages: Sequence[Outgoing], error: TransportError) -> list[Outgoing]:
    """Return those of some messages that an error says were not stored; all where it does not say."""
    stored = error.published or [None] * len(messages)
    return [message for message, published in zip(messages, stored, strict=True) if published is None]


def _note_end(task: asyncio.Task[bool]) -> None:
    """Retrieve an error that may have no waiter any more; the next commit tells it again."""
    if not task.cancelled():
        task.exception()


class TransactionalCommits:
    """Commits outputs and offsets together, one transaction for each partition: exactly once.

    Any failure of a transaction ends it, and a new member begins from the committed offsets. Its consumer must read committed
    records only.

    Args:
        context: What commits need of their group.
        producer: Makes transactional producers.
        mend: Makes topics again that have vanished, and raises their limits.
    """

    def __init__(self, context: CommitContext, producer: MakeProducer, mend: Mend) -> None:
        self._context = context
        self._group = context.pipeline.group
        self._settings = context.settings
        self._make_producer = producer
        self._mend = mend
        self._checked_at = -math.inf  # in loop time: when topics were last seen to be the same
        self._transactions: dict[TopicPartition, PartitionTransactions] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def interval(self) -> float:
        """Seconds between two looks at what is due."""
        return self._settings.transaction_interval

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the compiled road for the records of one partition, which puts outputs into its outbox."""
        return self._context.pipeline.bind(partition, self._transactions[partition].outbox)

    async def begin(self, partitions: Collection[TopicPartition]) -> None:
        """Fence former owners: committed offsets are final only then."""
        now = self._loop.time()
        opened = {
            partition: PartitionTransactions(
                self._group,
                partition,
                self._make_producer(transactional_id(self._group, partition)),
                now,
                self._mend,
            )
            for partition in partitions
        }
        self._transactions |= opened
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await _all(each.start() for each in opened.values())
        except TimeoutError as error:
            raise ConnectionFailed(
                f"the transactional producers of {self._group} did not start within {START_TIMEOUT:g} s"
            ) from error

    def open(self, assignment: Assignment) -> None:
        """Commit for an assignment from now on."""
        self._transactions[assignment.partition].note_start(assignment)

    def expect(self, assignment: Assignment) -> None:
        """Do nothing: every assignment is looked at."""

    async def commit_due(self) -> None:
        """Commit the transactions that are due, side by side."""
        assignments = self._context.assignments
        due = await self._still_due([each for each in assignments.values() if self.is_due(each)])
        await _all(self._transact(assignment, self._transactions[assignment.partition]) for assignment in due)
        if not any(each.counts and each.has_progress for each in assignments.values()):
            self._context.health.succeed(self._loop.time())

    def is_due(self, assignment: Assignment) -> bool:
        """Outputs are waited for; offsets alone are not, so they go as seldom as without transactions."""
        if not assignment.has_progress:
            return False
        transactions = self._transactions[assignment.partition]
        return bool(transactions.outbox) or self._loop.time() - transactions.ended_at >= self._settings.commit_interval

    async def commit(self, assignments: Iterable[Assignment]) -> TransportError | None:
        """Commit once more before partitions are given back. What fails is left to the next owner, who begins before it."""
        assignments = [*assignments]
        # A topic that goes between the look and the commit is gone at the second look.
        for _ in range(2):
            self._checked_at = -math.inf
            rest = [assignment for assignment in assignments if assignment.is_open and assignment.has_progress]
            try:
                due = await self._still_due(rest, at_last=True)
            except TransportError as error:
                return error  # no transaction has begun, so this can be repeated
            try:
                if await self._commit_rest(due):
                    return None
            except (TransportError, TimeoutError) as error:
                why = str(error) or "it took too long"
                # What became of it is not known, so there is nothing to repeat.
                logger.warning("%s: the last transaction failed: %s", self._group, why)
                return TransportError(f"a transaction failed: {why}", retryable=False)
        return TransportError("a topic that is there is said to be gone", retryable=True)

    async def _commit_rest(self, due: Collection[Assignment]) -> bool:
        """Commit what has no next time; tell whether the topics were there, or known to be gone."""
        async with asyncio.timeout(self._settings.commit_timeout):
            return all(await _all(self._transactions[assignment.partition].commit(assignment) for assignment in due))

    async def _transact(self, assignment: Assignment, transactions: PartitionTransactions) -> None:
        try:
            if not await transactions.commit(assignment):
                self._checked_at = -math.inf
                return
        except TransportError as error:
            if not assignment.is_open:  # it went to another member meanwhile
                logger.info("%s: no transaction for %s: %s", self._group, assignment.partition, error)
                return
            self._context.health.fail(error, self._context.outlook, self._loop.time())
            if isinstance(error, NotAuthorized | PartitionLost) or error.retryable:
                raise
            # Nothing is known about the transaction, but all about what is committed: begin there.
            raise TransportError(f"a transaction failed: {error}", retryable=True) from error
        self._context.health.succeed(self._loop.time())

    async def _still_due(self, due: list[Assignment], *, at_last: bool = False) -> list[Assignment]:
        """Return those whose offsets may be committed, and the outdated, whose outputs are all that is left to say.

        Transactions are too frequent to ask for each: what is committed meanwhile says by its topic's id that it means nothing.
        At the end of assignments that is also so where the topic has not been made again so far: no member will run their records.

        Raises:
            TransportError: No broker says which topics are there, and there is no next time.
        """
        now = self._loop.time()
        if not due or now - self._checked_at < self._settings.commit_interval:
            return [
                each for each in due if each.is_outdated or each.partition.topic not in self._context.topics.missing
            ]
        self._checked_at = now
        failed: TransportError | None = None
        same: list[Assignment] = []
        try:
            async with asyncio.timeout(self._settings.commit_timeout):
                same = await self._context.topics.same(due)
        except (TransportError, TimeoutError) as error:
            failed = self._context.health.fail(error, self._context.outlook, now)
        if failed is not None:
            if at_last:
                raise failed
            return []
        if at_last:
            for assignment in due:
                assignment.is_outdated |= assignment.partition.topic in self._context.topics.missing
        return [assignment for assignment in due if assignment in same or assignment.is_outdated]

    def is_full(self, assignment: Assignment) -> bool:
        """Tell whether many outputs wait for the next transaction."""
        return self._transactions[assignment.partition].outbox.size_bytes > MAX_WAITING_BYTES

    def is_published(self, assignment: Assignment) -> bool:
        """Tell whether no output waits for a transaction."""
        return not self._transactions[assignment.partition].outbox

    def is_visible(self, assignment: Assignment) -> bool:
        """Tell whether everything that is settled is committed, and so its outputs are visible."""
        return assignment.is_outdated or not assignment.has_progress

    def close(self, partitions: Collection[TopicPartition], assignments: Collection[Assignment]) -> None:
        """Stop the producers of partitions, after the transactions that are under way."""
        for partition in partitions:
            transactions = self._transactions.pop(partition, None)
            if transactions is not None:
                closing = asyncio.create_task(transactions.stop(self._settings.commit_timeout))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def finish(self) -> None:
        """Stop all producers, and wait until they have stopped."""
        self.close([*self._transactions], ())
        if self._closing:
            await asyncio.wait(self._closing, timeout=2 * self._settings.commit_timeout)


def transactional_id(group: str, partition: TopicPartition) -> str:
    """Return the id of a partition's owner. It begins with the group, as authorizations by prefix need it."""
    return f"{group}/{partition.topic}/{partition.partition}"


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do everything side by side; when all of it has ended, return the results or raise the first error."""
    results = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
