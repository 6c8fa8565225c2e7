"""`octopus watch`: what happens to files, published as events; also beside an app with `octopus run --watch`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from octopus.cli.file_events import FileEvent, FileWatcher
from octopus.cli.logs import configure_logs
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import note, notices, output
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.logs import get_logger
from octopus.operations.spelling import spell_bytes
from octopus.patience import Patience
from octopus.text import printable_json, visible
from octopus.transports.base import Outgoing
from octopus.transports.opening import producing
from octopus.worker import Worker

logger = get_logger("octopus.watch")

MOST_WAITING = 10_000
"""Events kept while the broker is away. Beyond that the disk itself remembers: see `file_events`."""

RETRY_WAIT = (0.5, 10.0)
"""Seconds between attempts: first, longest."""

Publish = Callable[[Sequence[Outgoing]], Awaitable[object]]

verb = App(name="watch", help_epilogue="")


@verb.default
def watch(
    directories: Annotated[tuple[Path, ...], Parameter(name="DIR", consume_multiple=True)],
    /,
    *,
    to: str,
    pattern: tuple[str, ...] = (),
    recursive: Annotated[bool, Parameter(negative="--no-recursive")] = True,
    existing: bool = False,
    poll: bool = False,
    key: Literal["path", "name"] = "path",
    count: Annotated[int | None, Parameter(name=("--count", "-n"))] = None,
    options: Options = DEFAULTS,
) -> None:
    """Publish what happens to files as events.

    Each event says: event (created, modified, deleted), path, name, directory,
    size, modified, host, time. Events of one file keep their order. While the
    broker is away they wait, and no last state of a file is ever missed.

        octopus watch /data/detector --to files --pattern '*.tif'

    Args:
        directories: What to watch.
        to: Topic to publish to.
        pattern: Only files with such names: '*.tif'. May be repeated.
        recursive: Also what is below.
        existing: Begin with the files that are there already, as created.
        poll: Look again and again instead of being notified, for network file systems.
        key: What becomes the key of each event.
        count: Stop after so many events.
    """
    if not directories:
        raise ConfigurationError("Which directory?")
    for directory in directories:
        if not directory.is_dir():
            what = "is a file, not a directory" if directory.exists() else "does not exist"
            raise ConfigurationError(f"{str(directory)!r} {what}.")
    settings = options.settings()
    configure_logs(settings.log, notices())
    watcher = FileWatcher(
        directories,
        recursive=recursive,
        patterns=pattern,
        existing=existing,
        exclude=_broker_directories(settings),
        polling=True if poll else None,
    )
    run_async(options, _watch(settings, watcher, to, key, count, options))


async def _watch(
    settings: Settings, watcher: FileWatcher, topic: str, key: str, count: int | None, options: Options
) -> None:
    async with reaching(settings) as transport, producing(transport, settings) as producer:
        await producer.ensure((topic,))
        await watcher.look()
        if not options.quiet:
            note(f"Watching; events go to {topic} on {transport.address}. Ctrl-C ends.")
        relay = Relay(topic, producer.send_many, key=key, most=count)
        relay.on_published = _show_json if options.json else None if options.quiet else _show
        await relay.run(watcher)


class Relay:
    """Publishes what a watcher sees, in order, however long the broker is away.

    Args:
        topic: Where to.
        publish: Publishes messages in order; returns once they are acknowledged.
        key: `path` or `name`.
        most: End after so many events; None for never.

    Attributes:
        on_published: Called with each event that was acknowledged.
    """

    def __init__(self, topic: str, publish: Publish, *, key: str = "path", most: int | None = None) -> None:
        self._topic = topic
        self._publish = publish
        self._key = key
        self._most = most
        self._queue: asyncio.Queue[FileEvent] = asyncio.Queue(MOST_WAITING)
        self._patience = Patience(logger, topic, "file events", RETRY_WAIT)
        self.on_published: Callable[[FileEvent], None] | None = None

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
            while not self._queue.empty() and len(events) < min(500, left or 500):
                events.append(self._queue.get_nowait())
            await self._deliver(events)
            left = None if left is None else left - len(events)

    async def _deliver(self, events: Sequence[FileEvent]) -> None:
        messages = [
            Outgoing(self._topic, msgspec.json.encode(event), getattr(event, self._key).encode()) for event in events
        ]
        await self._patience.until_all_sent(self._publish, messages)
        if self.on_published is not None:
            for event in events:
                self.on_published(event)


def _broker_directories(settings: Settings) -> list[Path]:
    """Return where the embedded broker keeps its records, which must not become events themselves."""
    return [Path(settings.broker.directory)] if settings.broker.directory else []


def watching_companion(pairs: Sequence[tuple[Path, str]]) -> Callable[[Worker], Awaitable[None]]:
    """Return a companion of a worker that publishes what happens in directories through the worker's app.

    Args:
        pairs: Directory and topic.
    """

    async def companion(worker: Worker) -> None:
        async def follow(directory: Path, topic: str) -> None:
            async def publish(messages: Sequence[Outgoing]) -> object:
                from octopus.events import Message

                return await worker.app.publish_many(topic, [Message(m.value, key=m.key) for m in messages])

            watcher = FileWatcher([directory], exclude=_broker_directories(worker.settings))
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


STYLES = {"created": "green", "modified": "yellow", "deleted": "red"}


def _show(event: FileEvent) -> None:
    from rich.text import Text

    size = "" if event.size is None else f"  {spell_bytes(event.size)}"
    output().print(Text.assemble((f"{event.event:<8}", STYLES[event.event]), f"  {visible(event.path)}", (size, "dim")))


def _show_json(event: FileEvent) -> None:
    output().out(printable_json(msgspec.json.encode(event).decode()), highlight=False)
