"""What waits in the retry topic of one handler, as a consumer group of its own runs it."""

import dataclasses
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from octopus.events import Record, StoredRecord, TopicPartition
from octopus.outcomes import SKIPPED, DeadLetter, Deferred, Outcome, Retry
from octopus.pipeline import Pipeline
from octopus.pipeline.attempts import AssignedOutputs
from octopus.pipeline.outputs import Outbox
from octopus.pipeline.pipeline import settled
from octopus.pipeline.road import Road
from octopus.retrying.topics import RetryTopic, read_deferred
from octopus.retrying.waiting import LOOK_AGAIN, WaitingPartition, WaitingRoom
from octopus.routing import RETRY_SUFFIX, Route
from octopus.types import BatchOutcome, Defer, Observe, PublishDeadLetter, Run, RunClaim


class RetryPipeline(Pipeline):
    """Runs what waits in the retry topic of one handler, as the application of a consumer group of its own.

    Its records run as they did where they came from: with those coordinates, and the attempt that is next. One that is not
    due asks for a retry at its time; that is how it waits, in the runner's heap. It is not in any order with others.

    Args:
        group: The group's name.
        stops_with: That of the group that has the handler.
        route: The handler.
        retries: Its retry topic.
        room: Bounds what waits in memory.
        **given: As `Pipeline`.

    Attributes:
        sources: The topics from which its records were copied, as far as they have names.
        stranded: Records that are in memory only, because their topic is gone, with the attempts that are next; by topic id,
            partition and offset.
    """

    def __init__(
        self, group: str, stops_with: str, route: Route, retries: RetryTopic, room: WaitingRoom, **given: Any
    ) -> None:
        unordered = dataclasses.replace(route, ordering="none", start="earliest")
        super().__init__(group, [unordered], defer={route.name: retries.defer}, **given)
        self.stops_with = stops_with
        self.handlers = (route.name + RETRY_SUFFIX,)
        self.topics = (retries.name,)
        self.stranded: dict[tuple[str | None, TopicPartition, int], tuple[StoredRecord, int]] = {}
        self.sources = route.topics if isinstance(route.topics, tuple) else ()
        self._retries = retries
        self._room = room
        # of the last assignment of each
        self._waiting: WeakValueDictionary[TopicPartition, WaitingPartition] = WeakValueDictionary()

    @property
    def waiting(self) -> int:
        """How many records are held here only because their time has not come."""
        return len(self._room)

    async def save(self, stored: StoredRecord, attempt: int) -> bool:
        """Write a record that waits to the topic that is there now; return whether that has it."""
        try:
            record = read_deferred(stored)
        except ValueError:
            return False
        if record.handler != self._retries.handler:
            return True  # its own handler's worker has it, too
        again = Retry(LOOK_AGAIN, counted=False, begun=False)
        return isinstance(await self._retries.move(record, again, attempt + record.next_attempt - 1), Deferred)

    def abandon(self, partition: TopicPartition) -> bool:
        """Hear that a partition's topic is gone; return whether its waiting records are written to the new one when they run next."""
        waiting = self._waiting.get(partition)
        if waiting is not None:
            waiting.is_abandoned = True
        return waiting is not None

    def origin(self, stored: StoredRecord, attempt: int) -> tuple[StoredRecord, int]:
        """Return a record as its handler sees it, and which attempt this is."""
        try:
            record = read_deferred(stored)
        except ValueError:
            return stored, attempt
        return record, record.next_attempt + attempt - 1

    def bind(
        self,
        partition: TopicPartition,
        outbox: Outbox | None = None,
        observe: Observe | None = None,
        outputs: AssignedOutputs | None = None,
    ) -> RunClaim:
        """Return the compiled road for the records of one partition: wrapped, and behind the wait. Raises as `Pipeline`."""
        self.check_driver(outbox)
        (road,) = self.roads
        self._waiting[partition] = waiting = self._room.open()
        run = when_due(
            partition,
            road.wrapped(partition, outbox, road.outlet(partition, outputs)),
            waiting,
            self._retries,
            road.deferring_through(self._retries.move, outbox),
            road.publish_dead_letter(outbox),
        )
        return settled(run, outbox)

    def roads_of(self, topic: str) -> list[Road]:
        """Return the one handler, which gets what waits in its topic."""
        return self.roads


def when_due(
    partition: TopicPartition,
    run: Run,
    waiting: WaitingPartition,
    retries: RetryTopic,
    move: Defer,
    publish_dead_letter: PublishDeadLetter,
) -> Run:
    """Let each record of a retry topic wait for its time, then run it as what it was.

    Args:
        partition: Of the retry topic.
        run: What its records come to in the end.
        waiting: Decides.
        retries: Whose they are, and what time it is.
        move: Writes one anew at the topic's end.
        publish_dead_letter: Takes records that no retry can have put there.
    """

    async def run_when_due(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        try:
            record = read_deferred(stored)
        except ValueError as error:
            dead_letter = DeadLetter(f"cannot be a retry that waits: {error}")
            await publish_dead_letter(Record.at(partition, stored), dead_letter, attempt)
            return dead_letter
        if record.handler != retries.handler:
            return SKIPPED  # handlers may share a topic
        attempt += record.next_attempt - 1
        size = len(record.key or b"") + len(record.value or b"")
        now = retries.clock()
        answer = waiting.look(stored.offset, record.due, stored.timestamp / 1000, size, now)
        outcome: Outcome | BatchOutcome = SKIPPED
        try:
            match answer:
                case "run":
                    outcome = await run(record, attempt)
                    if isinstance(outcome, Retry) and waiting.is_abandoned:
                        later = msgspec.structs.replace(record, due=retries.clock() + outcome.after)
                        outcome = await move(later, outcome, attempt + outcome.counted)
                case "move":
                    outcome = await move(record, Retry(LOOK_AGAIN, counted=False, begun=False), attempt)
                    if isinstance(outcome, Deferred):
                        waiting.leave(stored.offset)
                case seconds:
                    return Retry(seconds, counted=False, begun=False)
            if not isinstance(outcome, Retry):
                waiting.settled()
            return outcome
        finally:
            del outcome  # see `octopus.types`

    return run_when_due
