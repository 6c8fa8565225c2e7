"""Puts a group's handlers together: boundary around deadline around middleware around handling, once per partition.

Middleware, outermost first:  errors → timeout → the app's own → filter, decode, call, publish
"""

import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from octopus.errors import ConfigurationError
from octopus.events import Record, StoredRecord, TopicPartition
from octopus.outcomes import SKIPPED, DeadLetter, Deferred, Outcome, Retry
from octopus.pipeline.boundary import Conclude, PublishDeadLetter, boundary, decide, guard, guard_batches
from octopus.pipeline.dead_letters import SUFFIX, DeadLetters
from octopus.pipeline.deadlines import Deadlines
from octopus.pipeline.fan_out import fan_out, one_by_one
from octopus.pipeline.handling import Handling
from octopus.pipeline.middleware import claim_through, through
from octopus.pipeline.outputs import Outbox
from octopus.publishing import Publisher
from octopus.retrying.topics import SUFFIX as RETRY_SUFFIX
from octopus.retrying.topics import Defer, DeferredRecord, RetryTopic, concluding, deferring
from octopus.retrying.waiting import LOOK_AGAIN, WaitingPartition, WaitingRoom
from octopus.routing import Route, inlined
from octopus.transports.base import Producer
from octopus.types import BatchOutcome, Codec, Middleware, Run, RunClaim, in_turn


class _Part(NamedTuple):
    route: Route
    handling: Handling
    dead_letters: DeadLetters
    deadlines: Deadlines | None
    retries: RetryTopic | None


class Pipeline:
    """The application of one consumer group.

    Args:
        group: The group's name.
        routes: Its handlers; more than one must agree on ordering, start and delivery.
        middleware: The app's own, outermost first.
        codecs: The app's codecs.
        publisher: For what handlers return.
        producer: For dead letters.
        retry_topics: Of those handlers that have one, by name.
        dead_letter_limit: Dead letters of a handler within `dead_letter_window` seconds that stop it; 0 for no limit.
        dead_letter_window: Seconds.

    Attributes:
        line: The group that stops when this one does, and the other way round; its own, but for those that run retries.
        handlers: Names for people.
        keeps_waiting: Whether what waits in memory was in a topic of its own, so that it can be written there again.
        stranded: Records that are in memory only, because that topic is gone, with the attempts that are next; by topic id,
            partition and offset.

    Raises:
        ConfigurationError: The routes cannot share a group.
    """

    def __init__(
        self,
        group: str,
        routes: Sequence[Route],
        *,
        middleware: Sequence[Middleware] = (),
        codecs: Sequence[Codec] = (),
        publisher: Publisher,
        producer: Producer,
        retry_topics: Mapping[str, RetryTopic] | None = None,
        dead_letter_limit: int = 0,
        dead_letter_window: float = 60.0,
    ) -> None:
        _agree(group, routes)
        self.group = self.stops_with = group
        self.routes = tuple(routes)
        self.handlers = tuple(route.name for route in routes)
        first = routes[0]
        self.ordering = first.ordering
        self.batch = first.batch
        self.within = first.within
        self.start = first.start
        self.delivery = first.delivery
        self.concurrency = max(route.concurrency for route in routes)
        self.topics = subscription(routes)
        self.keeps_waiting = False
        self.stranded: dict[tuple[str | None, TopicPartition, int], tuple[StoredRecord, int]] = {}
        self._middleware = tuple(middleware)
        self._parts = []
        for route in routes:
            deadlines = Deadlines(route.timeout) if route.timeout is not None else None
            handling = Handling(
                route,
                codecs=codecs,
                encode=publisher.outgoing,
                send=publisher.send,
                check=deadlines.check if deadlines is not None else None,
            )
            dead_letters = DeadLetters(
                producer, route.name, topic=route.dead_letter, limit=dead_letter_limit, window=dead_letter_window
            )
            self._parts.append(_Part(route, handling, dead_letters, deadlines, (retry_topics or {}).get(route.name)))

    @property
    def waiting(self) -> int:
        """How many records are held here only because their time has not come."""
        return 0

    async def save(self, stored: StoredRecord, attempt: int) -> bool:
        """Write a record that waits to the topic that is there now; tell whether it has it."""
        return False

    def abandon(self, partition: TopicPartition) -> bool:
        """Hear that a partition's topic is gone; tell whether what waits is written elsewhere when it runs next."""
        return False

    @property
    def topics_by_name(self) -> tuple[str, ...]:
        """The topics that the group reads by their names; none when it reads by a pattern."""
        return self.topics if isinstance(self.topics, tuple) else ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Topics from which what it reads was copied."""
        return ()

    def reads(self, topic: str) -> bool:
        """Tell whether the group reads a topic."""
        topics = self.topics
        return topic in topics if isinstance(topics, tuple) else topics.fullmatch(topic) is not None

    def origin(self, stored: StoredRecord, attempt: int) -> tuple[StoredRecord, int]:
        """Return a record as its handler sees it, and which attempt this is."""
        return stored, attempt

    def bind(self, partition: TopicPartition, outbox: Outbox | None = None) -> Run:
        """Return the compiled path for the records of one partition.

        Args:
            partition: Which one.
            outbox: Gets what is published, for `delivery="exactly_once"`, from a driver that has transactions.

        Raises:
            ConfigurationError: The driver has none.
        """
        if (outbox is not None) != (self.delivery == "exactly_once"):
            raise ConfigurationError(
                f"group {self.group!r} wants delivery={self.delivery!r}, which cannot be had here: a transaction spans what "
                "is published and the offsets, so it needs a worker."
            )
        run = self._run(partition, outbox)
        return run if outbox is None else outbox.settling(run)

    def bind_claim(self, partition: TopicPartition) -> RunClaim:
        """Return the compiled path for records that run back to back. Raises as `bind`."""
        reading = [part for part in self._parts if part.route.reads(partition.topic)]
        if self.batch or self.delivery == "exactly_once" or any(part.deadlines for part in reading):
            return in_turn(self.bind(partition))
        if self._middleware:
            if len(reading) > 1:
                return in_turn(self.bind(partition))
            (part,) = reading
            handle = part.handling.bind(partition)
            return claim_through(self._middleware, part.route.name, partition, handle, self._conclude(partition, part))
        if len(reading) == 1:
            return reading[0].handling.bind_claim(partition, self._conclude(partition, reading[0]))
        patterns = [part.route.pattern for part in reading]
        handles = [
            part.handling.bind_single(partition, self._conclude(partition, part), filtered=False) for part in reading
        ]
        unsure = [self._bind(partition, part, None) for part in reading]
        return fan_out(handles, choose=reading[0].handling.chooser(patterns), unsure=unsure)

    def _conclude(self, partition: TopicPartition, part: _Part) -> Conclude:
        route, retries = part.route, part.retries
        conclude = boundary(route.name, partition, route.retry, part.dead_letters.publish)
        if retries is None:
            return conclude
        return concluding(partition, conclude, route.retry.defer_beyond, retries.defer)

    def _run(self, partition: TopicPartition, outbox: Outbox | None) -> Run:
        runs = [self._bind(partition, part, outbox) for part in self._parts if part.route.reads(partition.topic)]
        return runs[0] if len(runs) == 1 else one_by_one(fan_out(runs))

    def _bind(self, partition: TopicPartition, part: _Part, outbox: Outbox | None) -> Run:
        route, handling, dead_letters, deadlines, retries = part
        publish_dead_letter = (
            dead_letters.publish if outbox is None else outbox.publishing_dead_letters(dead_letters.publish)
        )
        if route.batch is None:
            conclude = boundary(route.name, partition, route.retry, publish_dead_letter)
            handle = self._wrap(partition, route.name, handling.bind(partition), deadlines)
            run = guard(
                handle if outbox is None else outbox.attempting(route.name, handle, dead_letters.publish), conclude
            )
            if retries is None:
                return run
            defer = (
                retries.defer if outbox is None else outbox.deferring(route.name, retries.defer, dead_letters.publish)
            )
            return deferring(partition, run, route.retry.defer_beyond, defer)

        def refuse(stored: StoredRecord, attempt: int, error: Exception) -> Outcome:
            return decide(route.retry, attempt, error)

        handle_batch = self._wrap(partition, route.name, handling.bind_batch(partition, refuse), deadlines)
        if outbox is not None:
            handle_batch = outbox.attempting(route.name, handle_batch, dead_letters.publish)
        return guard_batches(route.name, partition, handle_batch, route.retry, publish_dead_letter)

    def _wrap(
        self,
        partition: TopicPartition,
        handler: str,
        handle: Callable[[Any, int], Awaitable[Any]],
        deadlines: Deadlines | None,
    ) -> Callable[[Any, int], Awaitable[Any]]:
        if self._middleware:
            handle = through(self._middleware, handler, partition, handle)
        if deadlines is None:
            return handle
        limit = deadlines.limit

        async def within_limit(stored: Any, attempt: int) -> Any:
            return await limit(handle(stored, attempt))

        return within_limit


class RetryPipeline(Pipeline):
    """Runs what waits in the retry topic of one handler, as the application of a consumer group of its own.

    Its records run as they did where they came from: with those coordinates, and the attempt that is next. One that is not
    due asks for a retry at its time; that is how it waits, in the runner's heap. It is not in any order with others.

    Args:
        group: The group's name.
        line: That of the group that has the handler.
        route: The handler.
        retries: Its retry topic.
        room: Bounds what waits in memory.
        **given: As `Pipeline`.
    """

    def __init__(
        self, group: str, stops_with: str, route: Route, retries: RetryTopic, room: WaitingRoom, **given: Any
    ) -> None:
        unordered = dataclasses.replace(route, ordering="none", start="earliest")
        super().__init__(group, [unordered], retry_topics={route.name: retries}, **given)
        self.stops_with = stops_with
        self.handlers = (route.name + RETRY_SUFFIX,)
        self.topics = (retries.name,)
        self.keeps_waiting = True
        self._retries = retries
        self._room = room
        self._waiting: WeakValueDictionary[TopicPartition, WaitingPartition] = (
            WeakValueDictionary()
        )  # of the last assignment
        self._sources = route.topics if isinstance(route.topics, tuple) else ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Topics from which what it reads was copied."""
        return self._sources

    @property
    def waiting(self) -> int:
        """How many records are held here only because their time has not come."""
        return len(self._room)

    async def save(self, stored: StoredRecord, attempt: int) -> bool:
        """Write a record that waits to the topic that is there now; tell whether it has it."""
        try:
            record = DeferredRecord.read(stored)
        except ValueError:
            return False
        if record.handler != self._retries.handler:
            return True  # its own handler's worker has it, too
        again = Retry(LOOK_AGAIN, counted=False, begun=False)
        return isinstance(await self._retries.move(record, again, attempt + record.next_attempt - 1), Deferred)

    def abandon(self, partition: TopicPartition) -> bool:
        """Write what waits to the topic that is there now."""
        waiting = self._waiting.get(partition)
        if waiting is not None:
            waiting.is_abandoned = True
        return waiting is not None

    def origin(self, stored: StoredRecord, attempt: int) -> tuple[StoredRecord, int]:
        """Return a record as its handler sees it, and which attempt this is."""
        try:
            record = DeferredRecord.read(stored)
        except ValueError:
            return stored, attempt
        return record, record.next_attempt + attempt - 1

    def bind_claim(self, partition: TopicPartition) -> RunClaim:
        """Return the compiled path for records that run back to back. Raises as `bind`."""
        return in_turn(self.bind(partition))

    def _run(self, partition: TopicPartition, outbox: Outbox | None) -> Run:
        (part,) = self._parts
        run = self._bind(partition, part, outbox)
        publish_dead_letter = (
            part.dead_letters.publish if outbox is None else outbox.publishing_dead_letters(part.dead_letters.publish)
        )
        move = self._retries.move
        if outbox is not None:
            move = outbox.deferring(part.route.name, move, part.dead_letters.publish)
        self._waiting[partition] = waiting = self._room.open()
        return when_due(partition, run, waiting, self._retries, move, publish_dead_letter)


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
        publish_dead_letter: Takes those that nobody can have put there.
    """

    async def run_when_due(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        try:
            record = DeferredRecord.read(stored)
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

    return run_when_due


def subscription(routes: Sequence[Route]) -> tuple[str, ...] | re.Pattern[str]:
    """Return what a consumer of these routes subscribes to.

    A regular expression never takes in dead-letter and retry topics by accident: it must spell `dead-letter` or `retry`
    itself.
    """
    names = [topic for route in routes if isinstance(route.topics, tuple) for topic in route.topics]
    patterns = [route.topics for route in routes if isinstance(route.topics, re.Pattern)]
    if not patterns:
        return tuple(dict.fromkeys(names))
    choices = [re.escape(name) for name in names]
    for pattern in patterns:
        # One that is about dead letters still leaves alone those that come of dead letters, which would never end.
        left_alone = [SUFFIX * 2 if "dead-letter" in pattern.pattern else SUFFIX]
        if "retry" not in pattern.pattern:
            left_alone.append(RETRY_SUFFIX)
        choices.append(rf"(?!.*(?:{'|'.join(map(re.escape, left_alone))})\Z){inlined(pattern)}")
    return re.compile(rf"(?:{'|'.join(choices)})\Z")


def _agree(group: str, routes: Sequence[Route]) -> None:
    first = routes[0]
    for other in routes[1:]:
        for field in ("ordering", "start", "batch", "delivery"):
            if getattr(first, field) != getattr(other, field):
                raise ConfigurationError(
                    f"handlers {first.name!r} and {other.name!r} share group {group!r} but differ in {field}: "
                    f"{getattr(first, field)!r} and {getattr(other, field)!r}. Make them equal or give them groups of their own."
                )
        if other.batch is not None:
            raise ConfigurationError(
                f"batch handlers {first.name!r} and {other.name!r} cannot share group {group!r}; give them groups of their own."
            )
