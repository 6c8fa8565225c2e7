"""The app that users import: handlers, middleware and a lifespan, ways to publish, and to run it."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from octopus import config
from octopus.application import Application
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.home import Home
from octopus.publishing import Connection, Publisher
from octopus.send_queue import QUEUE_BYTES, Undelivered
from octopus.serde import JSON, Codec
from octopus.synchronous import SynchronousPublisher
from octopus.transports.base import Producer
from octopus.transports.opening import connect, make_producer
from octopus.types import Middleware

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # type checkers have it without anything installed

    S = TypeVarWithDefault("S", default=Any)
else:
    S = TypeVar("S")
M = TypeVar("M", bound=Middleware)
T = TypeVar("T")


class Octopus(Application, Generic[S]):
    """An application: handlers, timers and their shared state.

        app = Octopus("beamline")

        @app.on("files", filter={"event": ["created"]})
        async def register(file: File) -> None: ...

    Args:
        name: Begins the names of its consumer groups, `<name>.<handler>`: workers with the same name share the work.
        brokers: Bootstrap servers, `host:port` or several; none means the embedded broker. Short for `settings`.
        settings: Anything of `octopus.Settings`, as a nested mapping. File, environment and command line override it.
        codec: Writes published values, except bytes and text.
        codecs: Further formats that can be read, chosen by the content-type header.
        lifespan: Called with the app; its context is entered before the first record and left after the last. What it
            yields becomes `state`, and type checkers know its type from there.

    Attributes:
        state: Yours, shared by handlers. A `SimpleNamespace` unless the lifespan has yielded another object.
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
        if not isinstance(settings, Mapping | None):
            raise ConfigurationError(
                f"settings={settings!r} is no mapping: give a nested one, such as {{'worker': {{'drain_timeout': 30}}}}."
            )
        listed = (brokers,) if isinstance(brokers, str | None) else brokers
        if not isinstance(listed, Sequence) or not all(isinstance(each, str | None) for each in listed):
            raise ConfigurationError(f"brokers={brokers!r} names no broker: give 'host:9092', or several in a list.")
        if not isinstance(codecs, Iterable) or isinstance(codecs, str | bytes):
            raise ConfigurationError(
                f"codecs={codecs!r} is no list of codecs: give codecs=[MESSAGE_PACK], for example."
            )
        super().__init__(
            name,
            settings=config.merge(settings or {}, {} if brokers is None else {"brokers": brokers}),
            codec=codec,
            codecs=codecs,
            lifespan=lifespan,
        )

    # ── connections of its own ───────────────────────────────────────────────────────────────────────────────────────

    def synchronous_publisher(
        self,
        *,
        on_error: Callable[[Undelivered], object] | None = None,
        queue_bytes: int = QUEUE_BYTES,
        close_timeout: float = 30.0,
        **overrides: Any,
    ) -> SynchronousPublisher:
        """Return a publisher for code that is not async: `with app.synchronous_publisher() as publisher: …`.

        Args:
            on_error: Told of each event of `send` that is not delivered, in the publisher's thread.
            queue_bytes: What `send` may have queued or on its way; then it waits.
            close_timeout: Seconds that the end of the `with` block waits for what was sent.
            **overrides: Settings, over those of the app.
        """
        return SynchronousPublisher(
            lambda: self._producer(config.load(config.merge(self.settings, overrides))),
            self.codec,
            name=self.name,
            on_error=on_error,
            queue_bytes=queue_bytes,
            close_timeout=close_timeout,
        )

    @asynccontextmanager
    async def connected(self, **overrides: Any) -> AsyncIterator[Connection]:
        """Publish without handling anything: `async with app.connected(): await app.publish(…)`.

        Where the app runs, `app.publish` stays as it was, and only the yielded object uses the new connection:
        `async with app.connected(brokers="elsewhere:9092") as elsewhere: await elsewhere.publish(…)`.

        Args:
            **overrides: Settings, over those of the app.
        """
        async with self._producer(config.load(config.merge(self.settings, overrides))) as producer:
            with self._publishers.of_connection(Publisher(producer, self.codec)) as connection:
                yield connection

    # ── running ───────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def running(self, **overrides: Any) -> AsyncIterator["Octopus"]:
        """Run the handlers inside an asyncio program, until the block ends.

        Never touches signal handlers or the event loop policy; several apps may run in one loop.

        Args:
            **overrides: Settings, over those of the app: `brokers=`, `worker={…}`, …
        """
        from octopus.worker import Worker  # not before it is asked for: a function in Lambda never is

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

    @asynccontextmanager
    async def _producer(self, settings: Settings) -> AsyncIterator[Producer]:
        if (captor := self._publishers.captor) is not None:
            yield captor
            return
        home, transport = Home(), connect(settings, client_id=self.name)
        async with AsyncExitStack() as stack:
            await transport.open()
            stack.push_async_callback(transport.close)
            producer = make_producer(transport, settings, reports_outages=True)
            await producer.start()
            stack.push_async_callback(producer.stop)
            try:
                yield producer
            finally:
                if home.was_forked:
                    stack.pop_all()  # the sockets are its parent's: nothing may be delivered or said on them
