"""The test client: the third driver of an app, beside the worker and the Lambda trigger."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from octopus import config
from octopus.app import Octopus
from octopus.errors import ConfigurationError
from octopus.events import Published
from octopus.outcomes import Outcome
from octopus.publishing import HeadersLike
from octopus.testing.groups import Group, Topics, start_timer
from octopus.testing.journal import Journal, Views
from octopus.testing.virtual_time import VirtualTime, VirtualTimeLoop
from octopus.transports.memory import MemoryBroker

T = TypeVar("T")

CLEAN_UP_TIME = 60.0
"""Virtual seconds for tasks that are left when a test ends, and are cancelled."""

MOMENT = 1e-6
"""Seconds to let pass so that everything due before has run: time passes only when nothing else can."""


class TestClient(Views):
    """Runs an app in process, in virtual time, without a broker.

    Decoding, filters, ordering, batches, retries, dead letters, groups, middleware and lifespan are those of the worker.
    What the app publishes, also through `connected()` and `synchronous_publisher()`, stays in the test and is seen by the
    app's own handlers of that topic.

    In a test that is not async:

        with TestClient(app) as client:
            client.publish("files", {"path": "/data/a"})

    In an async one, within its event loop, which gets the virtual clock meanwhile:

        async with TestClient(app) as client:
            await client.publish("files", {"path": "/data/a"})

    Args:
        app: What to test.
        raise_errors: Whether a handler's exception is raised in the test once its event is given up. `Reject`,
            `RetryLater` and values that do not decode are answers, not errors: look at `dead_letters()`. That
            processing stopped is always raised.
        only: Names of handlers; all when empty. Timers run only when it is empty.
        partitions: Of topics that are created by their first use.
        broker: Topics and committed offsets that are there already; an empty broker when None. A second client of the
            same broker goes on where the first one ended.
        settings: Over those of the app: `worker={…}`, …
    """

    __test__ = False  # not a test class, although pytest takes it for one by its name

    def __init__(
        self,
        app: Octopus,
        *,
        raise_errors: bool = True,
        only: Sequence[str] = (),
        partitions: int = 1,
        broker: MemoryBroker | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(Journal([app.codec, *app.codecs]))
        self.app = app
        self._raise_errors = raise_errors
        self._only = only
        self._settings = config.load(config.merge(app.settings, settings))
        self._broker = broker or MemoryBroker(
            clock=self._wall_clock,
            auto_create=partitions,
            max_record_bytes=self._settings.producer.max_record_bytes,
        )
        self._stack = AsyncExitStack()
        self._clock = VirtualTime()
        self._epoch = time.time()
        self._synchronous: SynchronousTestClient | None = None

    # ── lifetime ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            loop = asyncio.get_running_loop()
            if isinstance(loop, VirtualTimeLoop):
                self._clock = loop.virtual_time
            else:
                self._clock = VirtualTime(loop.time())
                stack.enter_context(self._clock.installed(loop))
            self._epoch = time.time() - self._clock.time()
            topics = Topics(self._broker, self._journal, self._wall_clock)
            groups = topics.groups = [
                Group(pipeline, topics)
                for pipeline in self.app.pipelines(topics.outlet, self._settings, self._only, clock=self._wall_clock)
            ]
            self._clock.hold_while(topics.is_in_thread)
            stack.enter_context(self.app.captured(topics))
            await stack.enter_async_context(self.app.serving(topics.outlet))
            stack.push_async_callback(topics.close)
            for group in groups:
                group.begin(self._wall_clock())
            if not self._only:
                for timer in self.app.timers:
                    stack.push_async_callback(start_timer(timer, self._journal))
            self._topics = topics
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __enter__(self) -> "SynchronousTestClient":
        if asyncio._get_running_loop() is not None:
            raise ConfigurationError("This test is async: use `async with TestClient(app) as client:`.")
        self._synchronous = SynchronousTestClient(self)
        return self._synchronous.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._synchronous is not None
        self._synchronous.close()

    # ── what a test does ──────────────────────────────────────────────────────────────────────────────────────────

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        partition: int | None = None,
        timestamp: float | None = None,
        settle: bool = True,
    ) -> dict[str, Outcome]:
        """Publish one event and run everything that follows from it, retries included.

        Args:
            topic: Where to; it needs no creating.
            value: As `app.publish` takes it.
            key: As `app.publish` takes it.
            headers: As `app.publish` takes them.
            partition: A fixed partition.
            timestamp: Seconds since the epoch.
            settle: False to run nothing yet.

        Returns:
            The final outcome of this event in each handler that got it, by name; without `settle` there is none yet.

        Raises:
            Exception: What a handler raised, once its event was given up (see `raise_errors`).
            HandlerStopped: Processing stopped.
            TimeoutError: A handler does not end.
        """
        published = await self.app.publish(
            topic, value, key=key, headers=headers, partition=partition, timestamp=timestamp
        )
        self._journal.sent.pop(published)
        if settle:
            await self.settle()
        return dict(self._journal.last.get(published, {}))

    async def publish_many(
        self, topic: str, messages: Iterable[Any], *, settle: bool = True
    ) -> list[dict[str, Outcome]]:
        """Publish values or `Message`s at once, as one burst, and run everything that follows.

        Returns:
            For each of them what `publish` returns.
        """
        published: list[Published] = await self.app.publish_many(topic, messages)
        for each in published:
            self._journal.sent.pop(each)
        if settle:
            await self.settle()
        return [dict(self._journal.last.get(each, {})) for each in published]

    async def settle(self, *, patience: float = 10.0) -> None:
        """Run until no event is left: not waiting for its turn, its batch or its next attempt.

        Args:
            patience: Real seconds to wait for handlers that do not end.

        Raises:
            Exception: As `publish`.
        """
        loop, topics = asyncio.get_running_loop(), self._topics
        impatient = threading.Timer(patience, loop.call_soon_threadsafe, (topics.lose_patience,))
        impatient.daemon = True
        impatient.start()
        try:
            while topics.is_unsettled and not topics.out_of_patience:
                topics.progress.clear()
                await topics.progress.wait()
            if topics.out_of_patience:
                topics.out_of_patience = False
                raise TimeoutError(f"After {patience:g} s these are not settled: {topics.unsettled()}.")
        finally:
            impatient.cancel()
        self._raise()

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass: timers, retries, batching windows and timeouts that fall due happen.

        Raises:
            Exception: As `publish`; also what a timer's function raised.
        """
        await asyncio.sleep(seconds)
        await asyncio.sleep(MOMENT)
        while self._clock.is_held:  # noqa: ASYNC110 - threads do not notify, and this is a test
            await asyncio.sleep(0.001)
        self._raise()

    def _raise(self) -> None:
        errors = self._topics.take_errors(everything=self._raise_errors)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("several events were given up", errors)

    def _wall_clock(self) -> float:
        return self._epoch + self._clock.time()


class SynchronousTestClient(Views):
    """The test client for tests that are not async: `with TestClient(app) as client:`.

    It has an event loop of its own, which runs only inside of its calls.
    """

    def __init__(self, client: TestClient) -> None:
        super().__init__(client._journal)
        self.app = client.app
        self._client = client
        self._loop = VirtualTimeLoop()
        self._context = contextvars.copy_context()  # what the lifespan sets is there for the handlers
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()

    def open(self) -> Self:
        """Start the app. `with` does it."""
        self._life = self._task(self._live())
        try:
            opened = self._task(self._opened.wait())
            self._run(asyncio.wait([self._life, opened], return_when=asyncio.FIRST_COMPLETED))
            if self._life.done():  # it did not get as far
                self._life.result()
        except BaseException:
            self._close_loop()
            raise
        return self

    def close(self) -> None:
        """Stop the app. `with` does it."""
        self._closing.set()
        try:
            self._loop.run_until_complete(self._life)
        finally:
            self._close_loop()

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        partition: int | None = None,
        timestamp: float | None = None,
        settle: bool = True,
    ) -> dict[str, Outcome]:
        """See `TestClient.publish`."""
        return self._run(
            self._client.publish(
                topic, value, key=key, headers=headers, partition=partition, timestamp=timestamp, settle=settle
            )
        )

    def publish_many(self, topic: str, messages: Iterable[Any], *, settle: bool = True) -> list[dict[str, Outcome]]:
        """See `TestClient.publish_many`."""
        return self._run(self._client.publish_many(topic, messages, settle=settle))

    def settle(self, *, patience: float = 10.0) -> None:
        """See `TestClient.settle`."""
        self._run(self._client.settle(patience=patience))

    def advance(self, seconds: float) -> None:
        """See `TestClient.advance`."""
        self._run(self._client.advance(seconds))

    async def _live(self) -> None:
        # One task from beginning to end, because a lifespan may hold a task group, which must end where it began.
        async with self._client:
            self._opened.set()
            await self._closing.wait()

    def _close_loop(self) -> None:
        """End all tasks that are left, as `asyncio.run` does, and close."""
        try:
            self._loop.run_until_complete(_cancel_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if asyncio._get_running_loop() is not None:
            work.close()
            raise ConfigurationError(
                "This test client is for tests that are not async, and an event loop runs here. In an async test use "
                "`async with TestClient(app) as client:`, in a handler app.publish."
            )
        return self._loop.run_until_complete(self._task(work))

    def _task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        return self._loop.create_task(work, context=self._context)


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLEAN_UP_TIME)
