"""What happens to files, published as events: by itself, or beside a worker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from octopus.config import Settings
from octopus.events import Message
from octopus.logs import get_logger
from octopus.operations.file_events import FileEvent, FileWatcher
from octopus.operations.progress import unseen
from octopus.patience import Patience
from octopus.transports.base import Outgoing, Transport
from octopus.transports.opening import producing
from octopus.worker import Worker

logger = get_logger("octopus.watch")

MOST_WAITING = 10_000
"""Events kept while the broker is away. Beyond that the disk itself remembers: see `file_events`."""

RETRY_WAIT = (0.5, 10.0)
"""Seconds between attempts: first, longest."""

AT_ONCE = 500
"""Events that are published together."""

Publish = Callable[[Sequence[Outgoing]], Awaitable[object]]
"""Publishes messages in order; returns once they are acknowledged."""

Tell = Callable[[FileEvent], object]
"""Takes an event that was acknowledged."""


async def publish_file_events(
    transport: Transport,
    settings: Settings,
    watcher: FileWatcher,
    topic: str,
    *,
    key: Literal["path", "name"] = "path",
    most: int | None = None,
    begun: Callable[[], object] = lambda: None,
    published: Tell = unseen,
) -> None:
    """Publish what a watcher sees, until cancelled or until enough was published.

    Args:
        transport: Where.
        settings: How to produce, and whether a missing topic is made.
        watcher: Sees what happens to files.
        topic: Where to.
        key: The attribute of each event that becomes its key.
        most: End after so many events; None for never.
        begun: Called as soon as everything that happens from then on is seen.
        published: Called with each event that was acknowledged.

    Raises:
        TransportError: The broker refuses for good.
    """
    async with producing(transport, settings) as producer:
        await producer.ensure((topic,))
        await watcher.look()
        begun()
        await Relay(topic, producer.send_many, key=key, most=most, published=published).run(watcher)


def watching_companion(pairs: Sequence[tuple[Path, str]]) -> Callable[[Worker], Awaitable[None]]:
    """Return a companion of a worker that publishes what happens in directories through the worker's app.

    Args:
        pairs: Directory and topic.
    """

    async def companion(worker: Worker) -> None:
        async def follow(directory: Path, topic: str) -> None:
            async def publish(messages: Sequence[Outgoing]) -> object:
                return await worker.app.publish_many(topic, [Message(m.value, key=m.key) for m in messages])

            watcher = FileWatcher([directory], exclude=broker_directories(worker.settings))
            await watcher.look()
            logger.info("watching %s, events go to %s", directory, topic)
            try:
                await Relay(topic, publish).run(watcher)
            except Exception:
                logger.exception("watching %s has ended", directory)
                raise

        async with asyncio.TaskGroup() as group:
            for directory, topic in pairs:
                group.create_task(follow(directory, topic))

    return companion


def broker_directories(settings: Settings) -> list[Path]:
    """Return where the embedded broker keeps its records, which must not become events themselves."""
    return [Path(settings.broker.directory)] if settings.broker.directory else []


class Relay:
    """Publishes what a watcher sees, in order, however long the broker is away.

    Args:
        topic: Where to.
        publish: Where they go.
        key: The attribute of each event that becomes its key.
        most: End after so many events; None for never.
        published: Called with each event that was acknowledged.
    """

    def __init__(
        self,
        topic: str,
        publish: Publish,
        *,
        key: Literal["path", "name"] = "path",
        most: int | None = None,
        published: Tell = unseen,
    ) -> None:
        self._topic = topic
        self._publish = publish
        self._key = key
        self._most = most
        self._queue: asyncio.Queue[FileEvent] = asyncio.Queue(MOST_WAITING)
        self._patience = Patience(logger, topic, "file events", RETRY_WAIT)
        self._published = published

    async def run(self, watcher: FileWatcher) -> None:
        """Watch and publish until cancelled, or until enough was published."""
        watching = asyncio.create_task(self._watch(watcher))
        publishing = asyncio.create_task(self._drain())
        try:
            done, _ = await asyncio.wait((watching, publishing), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            watching.cancel()
            publishing.cancel()
            await asyncio.gather(watching, publishing, return_exceptions=True)

    async def _watch(self, watcher: FileWatcher) -> None:
        async for events in watcher.events():
            for event in events:
                await self._queue.put(event)

    async def _drain(self) -> None:
        left = self._most
        while left is None or left > 0:
            events = [await self._queue.get()]
            while not self._queue.empty() and len(events) < min(AT_ONCE, left or AT_ONCE):
                events.append(self._queue.get_nowait())
            await self._deliver(events)
            left = None if left is None else left - len(events)

    async def _deliver(self, events: Sequence[FileEvent]) -> None:
        messages = [
            Outgoing(self._topic, msgspec.json.encode(event), getattr(event, self._key).encode()) for event in events
        ]
        await self._patience.until_all_sent(self._publish, messages)
        for event in events:
            self._published(event)
