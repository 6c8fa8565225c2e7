"""An app as drivers see it: handlers and middleware as pipelines, a lifespan, and the publisher that serves it meanwhile.

The façade that users import, `octopus.app.Octopus`, starts drivers; it stands above them, and this module below.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from types import SimpleNamespace
from typing import Any, TypeVar

from octopus import config
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.events import Message, Published
from octopus.home import Home, elsewhere
from octopus.lifespan import Lifespan, check_lifespan
from octopus.pipeline import Pipeline
from octopus.pipeline.middleware import check_middleware
from octopus.publishing import Connection, HeadersLike, Publisher
from octopus.retrying import Clock, RetryPipeline, RetryTopic, WaitingRoom
from octopus.routing import RETRY_SUFFIX, Route, Router
from octopus.serde import JSON, Codec, check_codec
from octopus.transports.base import Producer
from octopus.types import Middleware

M = TypeVar("M", bound=Middleware)
T = TypeVar("T")


class Application(Router):
    """Handlers, timers and their shared state, as a driver sees them.

    Args:
        name: Begins the names of its consumer groups, `<name>.<handler>`.
        settings: As a nested mapping, not yet merged with file, environment and command line.
        codec: Writes published values, except bytes and text.
        codecs: Further formats that can be read, chosen by the content-type header.
        lifespan: Called with the app; entered before the first record and left after the last.

    Attributes:
        name: As given.
        settings: As given.
        codec: As given.
        codecs: As given.
        state: The object that the lifespan yielded; a `SimpleNamespace` while it has yielded none.

    Raises:
        ConfigurationError: The name cannot begin names of groups, or the lifespan is not one.
    """

    state: Any

    def __init__(
        self,
        name: str,
        *,
        settings: Mapping[str, Any],
        codec: Codec = JSON,
        codecs: Sequence[Codec] = (),
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(name, str) or not config.GROUP_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot name an app: 1 to 200 letters, digits, '.', '_' or '-', because it begins the names of "
                "its consumer groups."
            )
        for each in (codec, *codecs):
            check_codec(each)
        self.name = self._app_name = name
        self.state = SimpleNamespace()
        self.settings = settings
        self.codec = codec
        self.codecs = tuple(codecs)
        if lifespan is not None:
            check_lifespan(lifespan)
        self._lifespan = lifespan
        self._middleware: list[Middleware] = []
        self._publishers = Publishers(name)

    def middleware(self, function: M) -> M:
        """Register middleware: `async def timed(record, call_next): … return await call_next(record)`.

        The first registered is the outermost. It sees the handler's exceptions; its own count as the handler's.
        A batch handler's middleware gets the whole `Batch`. `call_next.handler` is the handler's name, `call_next.attempt`
        the number of the attempt.

        Raises:
            ConfigurationError: It cannot be called with a record and the rest of the chain.
        """
        check_middleware(function)
        self._middleware.append(function)
        return function

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> Published:
        """Publish one message.

        Args:
            topic: Where to.
            value: Bytes and text go as they are, None is a tombstone, anything else is encoded by the app's codec.
            key: Chooses the partition; equal keys keep their order.
            headers: Name and value pairs, or a mapping.
            partition: A fixed partition.
            timestamp: Seconds since the epoch; now when None.

        Returns:
            Where it was stored, once all in-sync replicas have acknowledged it.

        Raises:
            TransportError: The broker refused it or could not be reached; `.retryable` says which.
            TypeError: The value, key or headers cannot be encoded.
            ConfigurationError: The app is not connected, or not in this event loop and process.
        """
        message = Message(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        return await self._publishers.here().publish(topic, message)

    def publish_soon(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> "asyncio.Future[Published]":
        """Queue one message in order, and go on: it is published without an `await`.

        In a handler it goes out in order with what that returns, and the event settles only when all of it is acknowledged; a
        message that is refused for good is the event's failure. What an attempt that fails has published may be stored.

        Many of them cost far less than as many calls of `publish`. Nothing bounds what is queued outside of handlers: wait for
        the futures, for instance of a thousand at a time with `asyncio.gather`.

        Returns:
            A future that is done when `publish` would return, or has the error that it would raise. Cancelling it takes nothing
            back.

        Raises:
            TypeError: The value, key or headers cannot be encoded.
            TransportError: In a handler, that more is on its way than may be; `.retryable`.
            ConfigurationError: The app is not connected, or not in this event loop and process.
        """
        message = Message(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        return self._publishers.here().publish_soon(topic, message)

    async def publish_many(self, topic: str, messages: Iterable[Any]) -> list[Published]:
        """Publish values or `Message`s in order; return once all are acknowledged. Far cheaper than one by one."""
        return await self._publishers.here().publish_many(topic, messages)

    # ── for drivers ───────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def serving(self, producer: Producer) -> AsyncIterator[None]:
        """Let handlers publish through `producer` and enter the lifespan."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._publishers.of_driver(Publisher(producer, self.codec)))
            if self._lifespan is not None:
                state = await stack.enter_async_context(Lifespan(self._lifespan, self, self.name))
                if state is not None:
                    stack.callback(setattr, self, "state", self.state)
                    self.state = state
            yield

    @contextmanager
    def captured(self, producer: Producer) -> Iterator[None]:
        """Let `producer` serve `connected()` and `synchronous_publisher()`, too, which would open connections of their own.

        Args:
            producer: Started; used from any thread and event loop, and never stopped.
        """
        with self._publishers.captured(producer):
            yield

    def pipelines(
        self, producer: Producer, settings: Settings, only: Sequence[str] = (), *, clock: Clock = time.time
    ) -> list[Pipeline]:
        """Compile the handlers into one pipeline per consumer group, and one for each retry topic.

        Args:
            producer: For return values of handlers, dead letters and retries that wait in a topic.
            settings: For the dead-letter limit and for how much may wait in memory.
            only: Names of handlers; all when empty.
            clock: Seconds since the epoch, for when those are due.

        Raises:
            ConfigurationError: An unknown name, or handlers that cannot share their group.
        """
        groups: dict[str, list[Route]] = {}
        for route in self._selected(only):
            groups.setdefault(self.group_of(route), []).append(route)
        retry_topics = {
            route.name: RetryTopic(producer, f"{self.name}.{route.name}", topic, clock)
            for route in self._selected(only)
            if (topic := self.retry_topic_of(route)) is not None
        }
        given: dict[str, Any] = {
            "middleware": self._middleware,
            "codecs": [self.codec, *self.codecs],
            "publisher": Publisher(producer, self.codec),
            "producer": producer,
            "dead_letter_limit": settings.worker.dead_letter_limit or 0,
            "dead_letter_window": settings.worker.dead_letter_window,
        }
        defer = {name: retries.defer for name, retries in retry_topics.items()}
        pipelines = [Pipeline(group, routes, defer=defer, **given) for group, routes in groups.items()]
        retrying: list[Pipeline] = []
        for pipeline in pipelines:
            for route in pipeline.routes:
                if (retries := retry_topics.get(route.name)) is not None:
                    self._check_retries(route, pipeline, retries.name)
                    group = self.retry_group_of(route)
                    # Half of the in-flight limits, so that waiting retries never keep due ones from being read for long.
                    room = WaitingRoom(settings.worker.in_flight_records // 2, settings.worker.in_flight_bytes // 2)
                    retrying.append(RetryPipeline(group, pipeline.group, route, retries, room, **given))
        return pipelines + retrying

    def group_of(self, route: Route) -> str:
        """Return the consumer group of a handler."""
        return route.group or f"{self.name}.{route.name}"

    def retry_topic_of(self, route: Route) -> str | None:
        """Return the topic in which long retries of a handler wait; None when it has none."""
        if isinstance(route.retry_topic, str):
            return route.retry_topic
        return self.retry_group_of(route) if route.retry_topic else None

    def retry_group_of(self, route: Route) -> str:
        """Return the consumer group that reads a handler's retry topic."""
        return f"{self.name}.{route.name}{RETRY_SUFFIX}"

    def _check_retries(self, route: Route, pipeline: Pipeline, topic: str) -> None:
        if pipeline.reads(topic):
            raise ConfigurationError(
                f"group {pipeline.group!r} reads {topic!r}, in which retries of handler {route.name!r} wait: they would come "
                "straight back."
            )

    def _selected(self, only: Sequence[str]) -> list[Route]:
        known = {route.name: route for route in self.routes}
        for name in only:
            if name not in known:
                raise ConfigurationError(
                    f"{self.name} has no handler {name!r}; it has {', '.join(sorted(known)) or 'none'}."
                )
        return [known[name] for name in dict.fromkeys(only)] if only else self.routes


class Publishers:
    """The current publishers of an app.

    Args:
        name: The app's, for sentences.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._drivers: list[tuple[Home, Publisher]] = []  # that run now; the latest one here publishes
        self._connections: list[tuple[Home, Publisher]] = []  # where no driver runs they publish
        self._captors: list[Producer] = []  # serve calls that would open a connection of their own

    @property
    def captor(self) -> Producer | None:
        """The producer that serves calls which would open a connection of their own; None outside of tests."""
        return self._captors[-1] if self._captors else None

    def of_driver(self, publisher: Publisher) -> AbstractContextManager[None]:
        """Publish through a driver while the block lasts."""
        return _listed(self._drivers, (Home(), publisher))

    @contextmanager
    def of_connection(self, publisher: Publisher) -> Iterator[Connection]:
        """Publish through a connection while the block lasts, where no driver runs."""
        entry = Home(), publisher
        with _listed(self._connections, entry):
            yield Connection(self._name, *entry)

    def captured(self, producer: Producer) -> AbstractContextManager[None]:
        """Let a producer have everything while the block lasts."""
        return _listed(self._captors, producer)

    def here(self) -> Publisher:
        """Return the publisher of this event loop and process.

        Raises:
            ConfigurationError: There is none, or not here; the sentence names the alternative.
        """
        for publishers in (self._drivers, self._connections):
            for home, publisher in reversed(publishers):
                if home.is_here():
                    return publisher
        known = [*self._connections, *self._drivers]
        if not known:
            raise ConfigurationError(
                f"{self._name} is not connected: publish from a handler, or within `async with app.running():`, "
                "`async with app.connected():` or `with app.synchronous_publisher() as publisher:`."
            )
        home, _ = known[-1]
        raise elsewhere(
            f"The connection of {self._name}",
            home.process,
            "Open one of your own here: `async with app.connected():`, or in code that is not async "
            "`with app.synchronous_publisher() as publisher:`. A thread may also hand its work over: "
            "`asyncio.run_coroutine_threadsafe(app.publish(…), loop)`.",
        )


@contextmanager
def _listed(entries: list[T], entry: T) -> Iterator[None]:
    entries.append(entry)
    try:
        yield
    finally:
        del entries[next(index for index, each in enumerate(entries) if each is entry)]
