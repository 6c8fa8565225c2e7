"""Topics and consumer groups of a test client: records go from the in-process broker straight to the runners."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from octopus.errors import HandlerStopped, TransportError
from octopus.events import Published, StoredRecord, TopicPartition
from octopus.outcomes import SKIPPED, Outcome, Retry
from octopus.pipeline import Pipeline
from octopus.pipeline.claims import in_turn, one_by_one
from octopus.pipeline.outputs import CapturingProducer, Outbox
from octopus.retrying import Clock, RetryPipeline
from octopus.routing import Timer
from octopus.runner import Assignment, Runner
from octopus.runner.commit_metadata import decode_map, metadata_of, topic_id_of, without_topic_id
from octopus.testing.journal import Journal
from octopus.timers import call_regularly
from octopus.transports.base import Commit, Outgoing
from octopus.transports.memory import MemoryBroker
from octopus.transports.memory.broker import as_subscription
from octopus.transports.memory.storing import StoringProducer
from octopus.transports.topic_creation import check_topic_names
from octopus.types import BatchOutcome, Run, RunClaim
from octopus.unacknowledged import Unacknowledged
from octopus.worker.anchors import resolve_start
from octopus.worker.known_topics import is_another

YIELD_EVERY = 256
"""Runs after which the loop gets its turn: in virtual time a handler that never suspends takes none."""


class Topics(StoringProducer):
    """Stores what is published, remembers it, and hands it to the groups. It is the app's producer, in any thread."""

    def __init__(self, broker: MemoryBroker, journal: Journal, clock: Clock) -> None:
        self.broker = broker
        self.clock = clock
        self.journal = journal
        self.outlet = CapturingProducer(self)
        self.groups: list[Group] = []
        self._loop = asyncio.get_running_loop()
        self._undelivered: deque[TopicPartition] = deque()  # what was published in other threads, most recent last
        self.progress = asyncio.Event()
        self.out_of_patience = False

    # ── the producer ──────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def store(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Store messages in order and hand them to the groups."""
        check_topic_names({message.topic for message in messages} - self.broker.topics.keys())
        stored = self.broker.append(messages)
        for published in stored:
            log = self.broker.log(TopicPartition(published.topic, published.partition))
            self.journal.sent[published] = log.read(published.offset, 1)[0][0]
        self._undelivered.extend(
            dict.fromkeys(TopicPartition(published.topic, published.partition) for published in stored)
        )
        if asyncio.get_running_loop() is self._loop:
            self._deliver()
        elif not self._loop.is_closed():  # it may rest between two calls of a test that is not async
            self._loop.call_soon_threadsafe(self._deliver)
        return stored

    def _deliver(self) -> None:
        while self._undelivered:
            partition = self._undelivered.popleft()
            for group in self.groups:
                group.deliver(partition)
        self.progress.set()

    async def send_outputs(self, outbox: Outbox) -> None:
        """Store what waits for a transaction, and dead letters in the place of what a broker would refuse."""
        for outputs in outbox.take():
            while (refusal := self._refusal(outputs.messages)) is not None:
                outputs = await outputs.refuse(refusal)
            await self.send_many(outputs.messages)

    def _refusal(self, messages: Sequence[Outgoing]) -> TransportError | None:
        try:
            for message in messages:
                self.broker.check(message)
        except TransportError as error:
            return error
        return None

    # ── where things stand ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_unsettled(self) -> bool:
        """Whether a group has something left to do."""
        return bool(self._undelivered) or any(group.is_unsettled for group in self.groups)

    def unsettled(self) -> str:
        """Name some of the records that are not settled, and their groups."""
        names = [f"{group.pipeline.group} {name}" for group in self.groups for name in group.unsettled()]
        return ", ".join([*names[:5], f"and {len(names) - 5} more"] if len(names) > 5 else names)

    def is_in_thread(self) -> bool:
        """Whether a sync handler may be running in its thread."""
        return any(group.is_in_thread for group in self.groups)

    def lose_patience(self) -> None:
        """Let `settle` give up."""
        self.out_of_patience = True
        self.progress.set()

    def take_errors(self, *, everything: bool) -> list[BaseException]:
        """Return what is to be raised in the test, once."""
        errors, self.journal.fatal = self.journal.fatal, []
        return [error for error in errors if everything or isinstance(error, HandlerStopped)]

    async def close(self) -> None:
        """Stop the handlers and commit what is settled, so that another client can go on."""
        for group in self.groups:
            await group.close()
        self.groups = []  # a thread may publish on


class Group:
    """One consumer group.

    Args:
        pipeline: Its handlers.
        topics: Where its records come from.
    """

    def __init__(self, pipeline: Pipeline, topics: Topics) -> None:
        self.pipeline = pipeline
        self._topics = topics
        self._broker = topics.broker
        self._subscription = as_subscription(pipeline.topics)
        self._assignments: dict[TopicPartition, Assignment] = {}
        self._has_threads = any(not route.signature.is_async for route in pipeline.routes)
        self._runs = 0
        self._runner = Runner(
            self,
            ordering=pipeline.ordering,
            concurrency=pipeline.concurrency,
            batch=pipeline.batch,
            within=pipeline.within,
        )
        self._runner.stopped.add_done_callback(self._note_stop)

    # ── the application ───────────────────────────────────────────────────────────────────────────────────────────

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the pipeline's road, of which each record's outcome in each handler is noted."""
        pipeline, topics = self.pipeline, self._topics
        handlers = [road.route.name for road in pipeline.roads_of(partition.topic)]
        outbox = Outbox(partition) if pipeline.delivery == "exactly_once" else None
        observed = Observed(partition, handlers, topics.journal)
        # Records run one by one, because a claim says only how many of its records were skipped.
        run = one_by_one(pipeline.bind(partition, outbox, observed.observe))
        origin = pipeline.origin if isinstance(pipeline, RetryPipeline) else _unchanged

        async def run_observed(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
            self._runs += 1
            if not self._runs % YIELD_EVERY:
                await asyncio.sleep(0)
            try:
                outcome = await run(stored, attempt)
                if outbox is not None:
                    await topics.send_outputs(outbox)
                observed.note(*origin(stored, attempt), outcome)
            finally:
                topics.progress.set()
            return outcome

        return in_turn(run_observed)

    # ── records ───────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, now: float) -> None:
        """Start reading: where the group has committed, else where its handlers say.

        Args:
            now: Seconds since the epoch, for starts that are given as a time span.
        """
        if isinstance(self.pipeline.topics, tuple):
            for topic in self.pipeline.topics:
                self._broker.ensure_topic(topic)
        committed = self._broker.group(self.pipeline.group).offsets
        known = {partition.topic for partition in committed}
        for partition in self._broker.matching(self._subscription):
            commit = committed.get(partition)
            if commit is not None and is_another(topic_id_of(commit.metadata), self._id_of(partition)):
                commit = None  # of a topic that was made again since
            if commit is None:
                start = "earliest" if partition.topic in known else resolve_start(self.pipeline.start, now)
                commit = Commit(self._broker.offset_of(partition, start))
            ahead = decode_map(commit.offset, without_topic_id(commit.metadata))
            self._assignments[partition] = self._open(partition, commit.offset, ahead)
            self.deliver(partition)

    def _open(self, partition: TopicPartition, offset: int, ahead: Sequence[tuple[int, int]] = ()) -> Assignment:
        assignment = self._runner.open(partition, offset, ahead)
        assignment.topic_id = self._id_of(partition)
        return assignment

    def _id_of(self, partition: TopicPartition) -> str | None:
        return self._broker.topic_ids.get(partition.topic)

    def deliver(self, partition: TopicPartition) -> None:
        """Submit what the group has not seen of a partition; one that is new is read from its beginning."""
        assignment = self._assignments.get(partition)
        if assignment is None or is_another(assignment.topic_id, self._id_of(partition)):
            if partition not in self._broker.matching(self._subscription):
                return
            assignment = self._open(partition, self._broker.offset_of(partition, "earliest"))
            self._assignments[partition] = assignment
        log, position = self._broker.log(partition), assignment.ledger.position
        records, position = log.read(position, log.end - position)
        self._runner.submit(assignment, records, position, 0)

    async def close(self) -> None:
        """Cancel what runs and commit what is settled."""
        await self._runner.close()
        for partition, assignment in self._assignments.items():
            ledger, topic_id = assignment.ledger, assignment.topic_id
            if not is_another(topic_id, self._id_of(partition)):
                commit = Commit(ledger.committable, metadata_of(ledger, topic_id))
                self._broker.group(self.pipeline.group).offsets[partition] = commit
            assignment.close()

    # ── where things stand ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_unsettled(self) -> bool:
        """Whether there is something left to do; a group that stopped does nothing any more."""
        return not self._runner.stopped.done() and any(
            assignment.ledger.in_flight for assignment in self._assignments.values()
        )

    def unsettled(self) -> list[str]:
        """Return the coordinates of what is not settled."""
        return [
            f"{partition}@{offset}"
            for partition, assignment in self._assignments.items()
            for offset in assignment.ledger.unsettled()
        ]

    @property
    def is_in_thread(self) -> bool:
        """Whether a handler that is not async is running."""
        return self._has_threads and bool(self._runner.running)

    def _note_stop(self, stopped: "asyncio.Future[HandlerStopped]") -> None:
        if not stopped.cancelled():
            self._topics.journal.note_stopped(stopped.result())
            self._topics.progress.set()


class Observed:
    """Notes what becomes of the records of one partition in each handler of a group.

    Args:
        partition: Whose records they are.
        handlers: The names of those that read it.
        journal: Where to.
    """

    def __init__(self, partition: TopicPartition, handlers: Sequence[str], journal: Journal) -> None:
        self._partition = partition
        self._handlers = handlers
        self._journal = journal
        self._ran: dict[int, set[str]] = {}  # by offset, of records that are not settled: where several handlers read

    def observe(self, handler: str, run: Run) -> Run:
        """Return what runs a record through one of several handlers and notes its outcome there."""

        async def run_observed(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
            outcome = await run(stored, attempt)
            self._ran.setdefault(stored.offset, set()).add(handler)
            self._journal.note_all(handler, self._partition, stored, attempt, outcome)
            return outcome

        return run_observed

    def note(self, stored: StoredRecord, attempt: int, outcome: Outcome | BatchOutcome) -> None:
        """Note a record's outcome in the only handler; or that the handlers which did not get it have skipped it."""
        if len(self._handlers) == 1:
            self._journal.note_all(self._handlers[0], self._partition, stored, attempt, outcome)
        elif not isinstance(outcome, Retry):
            ran = self._ran.pop(stored.offset, set())
            for handler in self._handlers:
                if handler not in ran:
                    self._journal.note(handler, self._partition, stored, attempt, SKIPPED)


def start_timer(timer: Timer, journal: Journal) -> Callable[[], Awaitable[None]]:
    """Call a timer's function at its times; return what ends that."""

    def note_failure(failed: Timer, error: Exception) -> None:
        journal.note_failed_timer(failed.name, error)  # raised in the test

    task = asyncio.create_task(call_regularly(timer, note_failure), name=f"octopus timer {timer.name}")

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return end


def _unchanged(stored: StoredRecord, attempt: int) -> tuple[StoredRecord, int]:
    return stored, attempt
