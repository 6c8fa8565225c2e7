"""A producer that creates missing topics, and raises limits that are too small for their messages."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar, cast

from octopus.config import TOPIC_NAME, TOPIC_NAME_RULE, TopicSettings
from octopus.errors import (
    ConfigurationError,
    NotAuthorized,
    OctopusError,
    RecordTooLarge,
    TopicNotFound,
    TransportError,
)
from octopus.events import Published
from octopus.logs import get_logger
from octopus.transports.base import SIZE_LIMIT, Admin, Outgoing, Transport
from octopus.transports.queueing import CallProducer, Joined, Queued
from octopus.transports.topic_queue import TopicQueue

logger = get_logger("octopus.transports")

HEADROOM = 64 * 1024
"""Bytes that a dead letter or a retry may be larger than the event was, by the headers it gets."""

LOOK_AGAIN = (0.1, 2.0)
"""Seconds until the next look for a topic that an administrator must make, or a limit that must spread: first, longest."""

_TOPIC = attrgetter("topic")

T = TypeVar("T")


class TopicCreatingProducer:
    """Publishes through a transport's producer and creates missing topics, where that is allowed.

    Most clusters do not create topics on demand, and a dead letter must not fail because its topic is missing, nor because
    that takes less than the topic of the event. A topic that vanishes later is made again, or waited for.

    Args:
        transport: Where.
        settings: Whether to create topics, and how.
        **options: Of the producer; `delivery_timeout` is also how long a topic that has vanished is waited for.
    """

    def __init__(self, transport: Transport, settings: TopicSettings, **options: Any) -> None:
        self._transport = transport
        self._settings = settings
        self._producer = cast("CallProducer", transport.producer(**options))
        self._patience: float = options.get("delivery_timeout", 60.0)
        self._queues: dict[str, TopicQueue] = {}
        self._known: set[str] = set()
        self._vanished: dict[str, asyncio.Lock] = {}
        self._asked_for: dict[tuple[str, int | None], int] = {}  # (topic, its limit) → the limit that the log asked for
        self._admin: Admin | None = None
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Deliver what is queued, then close. What waits for a topic that has vanished is given up after a while."""
        try:
            for topic in self._queues.values():
                topic.forget_cancelled()
            if tasks := {task for topic in self._queues.values() for task in topic.tasks}:
                _, late = await asyncio.wait(tasks, timeout=self._patience)
                for task in late:
                    task.cancel()
                await asyncio.wait(tasks)
            await self._producer.stop()
        finally:
            if self._admin is not None:
                await self._admin.stop()

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Publish many in order, behind all others; their topics are made where they are missing."""
        topics = dict.fromkeys(map(_TOPIC, messages))
        if len(topics) == 1:
            future: Queued = asyncio.get_running_loop().create_future()
            self._queue_of(messages[0].topic).queue(messages, future)
            return future
        joined = Joined(len(messages))
        for topic in topics:
            indexes = [at for at, message in enumerate(messages) if message.topic == topic]
            part: Queued = asyncio.get_running_loop().create_future()
            self._queue_of(topic).queue([messages[at] for at in indexes], part, word=joined.future)
            joined.add(indexes, part)
        return joined.future

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish one message, as `queue`."""
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        (self._queues.get(message.topic) or self._queue_of(message.topic)).queue((message,), future, is_single=True)
        return future

    def _queue_of(self, topic: str) -> TopicQueue:
        queue = self._queues.get(topic)
        if queue is None:
            queue = self._queues[topic] = TopicQueue(
                topic,
                self._producer,
                ensure=lambda messages: self.ensure((topic,), sources_of(messages)),
                mend=self.mend,
                is_known=lambda: topic in self._known,
            )
        return queue

    @property
    def queued_bytes(self) -> int:
        """Bytes of the keys and values that are queued or on their way."""
        return self._producer.queued_bytes + sum(queue.held_bytes for queue in self._queues.values())

    async def send(self, message: Outgoing) -> Published:
        """Publish one message; return when it is acknowledged."""
        return await _heard(self.queue_one(message))

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish many in order; return when all are acknowledged."""
        return await _heard(self.queue(messages))

    async def ensure(self, topics: Collection[str], sources: Mapping[str, Collection[str]] | None = None) -> None:
        """Create those of the topics that do not exist.

        Args:
            topics: Their names.
            sources: For topics of copies, the topics of the events: a copy's topic takes records as large as theirs.

        Raises:
            NotAuthorized: A topic is missing and may not be created by this principal.
            TopicNotFound: A topic is missing and `topics.create` is off; `.retryable` when it was there before.
            ConfigurationError: The name of a topic is invalid.
        """
        wanted = {*topics} - self._known
        if not wanted:
            return
        check_topic_names(wanted)
        if vanished := wanted & self._vanished.keys():
            await self._restore(vanished, sources or {})
            wanted -= vanished
        admin = await self._connected_admin()
        for topic in sorted(wanted - await self._listed()):
            await self._create(admin, topic, (sources or {}).get(topic, ()))
        self._known |= wanted

    # ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def mend(self, error: TransportError, messages: Sequence[Outgoing], refusals: int) -> bool:
        """Mend the cause of a broker's refusal; tell whether it may take the same messages now.

        Args:
            error: Why.
            messages: The messages that were not stored.
            refusals: How often they have been refused for this, from 1.

        Raises:
            TopicNotFound: Their topic has vanished and has not been made again so far; `.retryable`.
            TransportError: The broker is away; `.retryable`.
        """
        if isinstance(error, TopicNotFound):
            return await self._mend_topics(messages)
        if isinstance(error, RecordTooLarge):
            return await self._mend_limits(messages, refusals)
        return False

    async def _mend_topics(self, messages: Sequence[Outgoing]) -> bool:
        topics = {message.topic for message in messages}
        if vanished := topics - await self._listed():
            self._known -= vanished
            await self._restore(vanished, sources_of(messages))
            return True
        # The topic is there again, perhaps with fewer partitions: messages without a fixed one go to another.
        return any(message.partition is None for message in messages)

    async def _restore(self, topics: Collection[str], sources: Mapping[str, Collection[str]]) -> None:
        """Make topics again that were there before, or wait until they are made."""
        admin = await self._connected_admin()
        for topic in sorted(topics):
            lock = self._vanished.setdefault(topic, asyncio.Lock())
            try:
                async with asyncio.timeout(self._patience), lock:  # one task looks for all waiting ones
                    if topic not in self._known:
                        await self._bring_back(admin, topic, sources.get(topic, ()))
                        self._known.add(topic)
                        self._vanished.pop(topic, None)
            except TimeoutError:
                raise TopicNotFound(
                    f"topic {topic!r} has vanished from {self._transport.address}, and was not made again within "
                    f"{self._patience:g} s. Make it: octopus topics create {topic}",
                    retryable=True,
                ) from None

    async def _bring_back(self, admin: Admin, topic: str, sources: Collection[str]) -> None:
        may_create, reason = self._settings.create, "topics.create is off"
        wait, longest = LOOK_AGAIN
        waits = False
        while topic not in await self._listed():
            try:
                if may_create:
                    logger.warning("topic %r has vanished from %s; making it again", topic, self._transport.address)
                    await self._create(admin, topic, sources)
                    return
            except TransportError as error:
                may_create, reason = not isinstance(error, NotAuthorized), str(error)
            if not waits:
                waits = True
                logger.warning(
                    "topic %r has vanished from %s and cannot be made again (%s); events for it wait. Make it: octopus "
                    "topics create %s",
                    topic,
                    self._transport.address,
                    reason,
                    topic,
                )
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)
        logger.warning("topic %r is there again", topic)

    async def _mend_limits(self, messages: Sequence[Outgoing], refusals: int) -> bool:
        """Raise the limit of topics that take less than the events were that are copied there."""
        admin, mended = await self._connected_admin(), False
        first, longest = LOOK_AGAIN
        for topic, sources in sources_of(messages).items():
            largest = max(_size(message) for message in messages if message.topic == topic)
            limit: int | None = None
            wanted = largest + HEADROOM
            try:
                limit = int((await admin.topic_config(topic))[SIZE_LIMIT])
                wanted = max([largest, *[await self._limit(admin, source) or 0 for source in sources]]) + HEADROOM
                if limit >= wanted:  # it was raised a moment ago, perhaps by another process, and has to spread
                    await asyncio.sleep(min(first * 2 ** (refusals - 1), longest))
                elif not self._settings.create:
                    raise NotAuthorized("topics.create is off")
                else:
                    await admin.alter_topic(topic, config={SIZE_LIMIT: str(wanted)})
                    logger.warning("topic %r takes %d bytes now, %d before: an event did not fit", topic, wanted, limit)
                mended = True
            except TopicNotFound:  # it was there when it refused
                self._known.discard(topic)
                await self._restore([topic], {topic: sources})
                mended = True
            except (TransportError, KeyError, ValueError) as error:
                if isinstance(error, TransportError) and error.retryable:
                    raise  # the broker has not refused to raise it
                self._ask_for(topic, limit, wanted, error)
        return mended

    def _ask_for(self, topic: str, limit: int | None, wanted: int, error: Exception) -> None:
        """Log the limit that a topic needs. A dead letter that sheds headers comes again, smaller, and is not logged."""
        if self._asked_for.get((topic, limit), 0) >= wanted:
            return
        self._asked_for[topic, limit] = wanted
        logger.warning(
            "topic %r takes less than the events that go there, and its limit may not be raised (%s). Raise it to %d: "
            "kafka-configs.sh --alter --topic %s --add-config %s=%d",
            topic,
            error,
            wanted,
            topic,
            SIZE_LIMIT,
            wanted,
        )

    # ── topics ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _create(self, admin: Admin, topic: str, sources: Collection[str]) -> None:
        if not self._settings.create:
            raise TopicNotFound(
                f"topic {topic!r} does not exist on {self._transport.address} and topics.create is off. Create it: "
                f"octopus topics create {topic}"
            )
        limits = [limit for source in sorted(sources) if (limit := await self._limit(admin, source)) is not None]
        config = {SIZE_LIMIT: str(max(limits) + HEADROOM)} if limits else None
        partitions, replication = self._settings.partitions, self._settings.replication
        try:
            try:
                await admin.create_topic(topic, partitions=partitions, replication=replication, config=config)
            except TransportError as error:
                if config is None or error.retryable or isinstance(error, NotAuthorized):
                    raise
                logger.warning("topic %r is made without %s of its own: %s", topic, SIZE_LIMIT, error)
                await admin.create_topic(topic, partitions=partitions, replication=replication)
        except NotAuthorized as error:
            raise NotAuthorized(
                f"topic {topic!r} does not exist on {self._transport.address} and may not be created: {error}. Ask the "
                f"operator for it: octopus topics create {topic}"
            ) from error

    async def _limit(self, admin: Admin, topic: str) -> int | None:
        """Return the largest batch that a topic takes; None where that may not be known."""
        try:
            return int((await admin.topic_config(topic))[SIZE_LIMIT])
        except (TransportError, KeyError, ValueError) as error:
            logger.info("%s of topic %r is not known: %s", SIZE_LIMIT, topic, error)
            return None

    async def _listed(self) -> set[str]:
        return {topic.name for topic in await (await self._connected_admin()).topics()}

    async def _connected_admin(self) -> Admin:
        async with self._connecting:  # concurrent handlers share one
            if self._admin is None:
                admin = self._transport.admin()
                await admin.start()
                self._admin = admin
            return self._admin


def check_topic_names(topics: Iterable[str]) -> None:
    """Refuse an invalid topic name, before a broker does so in its own words.

    Raises:
        ConfigurationError: One of them cannot.
    """
    for topic in topics:
        if not isinstance(topic, str) or not TOPIC_NAME.fullmatch(topic):
            shown = topic[:300] if isinstance(topic, str) else topic
            raise ConfigurationError(f"{shown!r} is not a topic name: {TOPIC_NAME_RULE}.")


def sources_of(messages: Iterable[Outgoing]) -> dict[str, set[str]]:
    """Return the topics that take copies of events, each with the topics of the events."""
    found: dict[str, set[str]] = {}
    for message in messages:
        if message.source is not None:
            found.setdefault(message.topic, set()).add(message.source)
    return found


async def _heard(future: "asyncio.Future[T]") -> T:
    """Wait for a future. Its error is raised once others have heard of the failure, too: before that, another attempt would fail at once."""
    try:
        return await future
    except OctopusError:
        for _ in range(2):
            await asyncio.sleep(0)  # see `Unheard`
        raise


def _size(message: Outgoing) -> int:
    headers = sum(len(name) + len(value or b"") + 10 for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers
