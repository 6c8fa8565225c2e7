"""The app: a router with a name, middleware, a lifespan, and a way to publish."""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from octopus import config
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.events import Message, Published
from octopus.home import Home, elsewhere
from octopus.lifespan import Lifespan, check_lifespan
from octopus.middleware.chain import check_middleware
from octopus.middleware.retry_topics import SUFFIX, Clock, RetryTopic
from octopus.pipeline import Pipeline, RetryPipeline
from octopus.publishing import Connection, HeadersLike, Publisher, SynchronousPublisher
from octopus.routing import Route, Router
from octopus.serde import JSON
from octopus.transports.base import Producer
from octopus.transports.ensure import TopicEnsurer
from octopus.transports.opening import connect, producer_options
from octopus.types import Codec, Middleware
from octopus.waiting import WaitingRoom

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # type checkers have it without anything installed

    S = TypeVarWithDefault("S", default=Any)
else:
    S = TypeVar("S")
M = TypeVar("M", bound=Middleware)
T = TypeVar("T")


class Octopus(Router, Generic[S]):
    """An application: handlers, timers and what they share.

        app = Octopus("beamline")

        @app.on("files", filter={"event": ["created"]})
        async def register(file: File) -> None: ...

    Args:
        name: Begins the names of its consumer groups, `<name>.<handler>`: workers with the same name share the work.
        brokers: Bootstrap servers, `host:port` or several; none means the embedded broker. Short for `settings`.
        settings: Anything of `octopus.Settings`, as a nested mapping. File, environment and command line override it.
        codec: Writes what is published, unless it is bytes or text.
        codecs: Further formats that can be read, chosen by the content-type header.
        lifespan: Called with the app; its context is entered before the first record and left after the last. What it
            yields becomes `state`, and type checkers know its type from there.

    Attributes:
        state: Yours: whatever handlers share. A `SimpleNamespace` while no lifespan has yielded something else.
        codec: As given.
        codecs: As given.
    """

    state: S

    @overload
    def __init__(
        self: "Octopus[Any]",
        name: str,
        *,
        brokers: str | Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        codec: Codec = JSON,
        codecs: Sequence[Codec] = (),
        lifespan: Callable[["Octopus[Any]"], AbstractAsyncContextManager[None]] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        brokers: str | Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        codec: Codec = JSON,
        codecs: Sequence[Codec] = (),
        lifespan: Callable[["Octopus[Any]"], AbstractAsyncContextManager[S]],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        brokers: str | Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        codec: Codec = JSON,
        codecs: Sequence[Codec] = (),
        lifespan: Callable[["Octopus[Any]"], AbstractAsyncContextManager[Any]] | None = None,
    ) -> None:
        super().__init__()
        if not name or not config.GROUP_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot name an app: 1 to 200 letters, digits, '.', '_' or '-', because it begins the names of "
                "its consumer groups."
            )
        self.name = self._app_name = name
        self.state = cast("S", SimpleNamespace())
        self.settings: Mapping[str, Any] = config.merge(settings or {}, {} if brokers is None else {"brokers": brokers})
        self.codec = codec
        self.codecs = tuple(codecs)
        if lifespan is not None:
            check_lifespan(lifespan)
        self._lifespan = lifespan
        self._middleware: list[Middleware] = []
        self._running: list[tuple[Home, Publisher]] = []  # of the drivers that run now; the latest one here publishes
        self._connections: list[tuple[Home, Publisher]] = []  # of `connected()`; where no driver runs they publish
        self._captors: list[Producer] = []  # get what would open a connection of its own

    def middleware(self, function: M) -> M:
        """Register middleware: `async def timed(record, call_next): … return await call_next(record)`.

        The first registered is the outermost. It sees the handler's exceptions; what it raises counts as the handler's.
        A batch handler's middleware gets the whole `Batch`. `call_next.handler` and `call_next.attempt` say whom it is for.

        Raises:
            ConfigurationError: It cannot be called with a record and the rest of the chain.
        """
        check_middleware(function)
        self._middleware.append(function)
        return function

    # ── publishing ────────────────────────────────────────────────────────────────────────────────────────────────

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
            TypeError: The value cannot be encoded.
            ConfigurationError: The app is not connected, or not in this event loop and process.
        """
        message = Message(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        return await self._connected_publisher().publish(topic, message)

    async def publish_many(self, topic: str, messages: Iterable[Any]) -> list[Published]:
        """Publish values or `Message`s in order; return once all are acknowledged. Far cheaper than one by one."""
        return await self._connected_publisher().publish_many(topic, messages)

    def synchronous_publisher(self, **overrides: Any) -> SynchronousPublisher:
        """Return a publisher for code that is not async: `with app.synchronous_publisher() as publisher: …`."""
        return SynchronousPublisher(
            lambda: self._producer(config.load(config.merge(self.settings, overrides))), self.codec, name=self.name
        )

    @asynccontextmanager
    async def connected(self, **overrides: Any) -> AsyncIterator[Connection]:
        """Publish without handling anything: `async with app.connected(): await app.publish(…)`.

        Where the app runs, `app.publish` stays what it was, and only what this gives uses the new connection:
        `async with app.connected(brokers="elsewhere:9092") as elsewhere: await elsewhere.publish(…)`.

        Args:
            **overrides: Settings, over those of the app.
        """
        async with self._producer(config.load(config.merge(self.settings, overrides))) as producer:
            entry = Home(), Publisher(producer, self.codec)
            with _listed(self._connections, entry):
                yield Connection(self.name, *entry)

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def running(self, **overrides: Any) -> AsyncIterator["Octopus"]:
        """Run the handlers inside somebody's asyncio program, until the block ends.

        Never touches signal handlers or the event loop policy; several apps may run in one loop.

        Args:
            **overrides: Settings, over those of the app: `brokers=`, `worker={…}`, …
        """
        from octopus.worker import Worker  # the one arrow that points up: a convenience, named in docs/design.md

        async with Worker(self, config.load(config.merge(self.settings, overrides))):
            yield self

    def run(self, **overrides: Any) -> None:
        """Run as `octopus run` does, with settings from octopus.toml and the environment; returns when stopped.

        Raises:
            ConfigurationError: An event loop runs here already, or this is not the main thread: signals end a worker.
            SystemExit: With an exit code other than 0.
        """
        from octopus.worker import run

        run(self, overrides)

    # ── for drivers ───────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def serving(self, producer: Producer) -> AsyncIterator[None]:
        """Let handlers publish through `producer` and enter the lifespan."""
        async with AsyncExitStack() as stack:
            stack.enter_context(_listed(self._running, (Home(), Publisher(producer, self.codec))))
            if self._lifespan is not None:
                state = await stack.enter_async_context(Lifespan(self._lifespan, self, self.name))
                if state is not None:
                    stack.callback(setattr, self, "state", self.state)
                    self.state = state
            yield

    @contextmanager
    def captured(self, producer: Producer) -> Iterator[None]:
        """Let `producer` have, too, what would open a connection of its own: `connected()` and `synchronous_publisher()`.

        Args:
            producer: Started; used from any thread and event loop, and never stopped.
        """
        with _listed(self._captors, producer):
            yield

    def pipelines(
        self, producer: Producer, settings: Settings, only: Sequence[str] = (), *, clock: Clock = time.time
    ) -> list[Pipeline]:
        """Compile the handlers into one pipeline per consumer group, and one for each retry topic.

        Args:
            producer: For what handlers return, for dead letters and for retries that wait in a topic.
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
        pipelines = [Pipeline(group, routes, retry_topics=retry_topics, **given) for group, routes in groups.items()]
        retrying: list[Pipeline] = []
        for pipeline in pipelines:
            for route in pipeline.routes:
                if (retries := retry_topics.get(route.name)) is not None:
                    self._check_retries(route, pipeline, retries.name)
                    group = self.retry_group_of(route)
                    # Half of what may be in flight: so what waits never keeps what is due from being read for long.
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
        return f"{self.name}.{route.name}{SUFFIX}"

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

    def _connected_publisher(self) -> Publisher:
        for publishers in (self._running, self._connections):
            for home, publisher in reversed(publishers):
                if home.is_here():
                    return publisher
        known = [*self._connections, *self._running]
        if not known:
            raise ConfigurationError(
                f"{self.name} is not connected: publish from a handler, or within `async with app.running():`, "
                "`async with app.connected():` or `with app.synchronous_publisher() as publisher:`."
            )
        home, _ = known[-1]
        raise elsewhere(
            f"The connection of {self.name}",
            home.process,
            "Open one of your own here: `async with app.connected():`, or in code that is not async "
            "`with app.synchronous_publisher() as publisher:`. A thread may also hand its work over: "
            "`asyncio.run_coroutine_threadsafe(app.publish(…), loop)`.",
        )

    @asynccontextmanager
    async def _producer(self, settings: Settings) -> AsyncIterator[Producer]:
        if self._captors:
            yield self._captors[-1]
            return
        home, transport = Home(), connect(settings, client_id=self.name)
        async with AsyncExitStack() as stack:
            await transport.open()
            stack.push_async_callback(transport.close)
            producer = TopicEnsurer(transport, settings.topics, **producer_options(settings.producer))
            await producer.start()
            stack.push_async_callback(producer.stop)
            try:
                yield producer
            finally:
                if home.was_forked:
                    stack.pop_all()  # the sockets are its parent's: nothing may be delivered or said on them


@contextmanager
def _listed(entries: list[T], entry: T) -> Iterator[None]:
    entries.append(entry)
    try:
        yield
    finally:
        del entries[next(index for index, each in enumerate(entries) if each is entry)]
