"""A worker: every consumer group of an app, its timers and its producer, for as long as a block lasts."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from octopus.application import Application
from octopus.config import Settings
from octopus.errors import (
    ConfigurationError,
    ConnectionFailed,
    HandlerStopped,
    OctopusError,
    PartitionLost,
    TopicNotFound,
    TransportError,
)
from octopus.events import TopicPartition
from octopus.home import Home
from octopus.logs import get_logger
from octopus.pipeline import Pipeline
from octopus.pipeline.outputs import CapturingProducer
from octopus.retrying import RetryPipeline
from octopus.routing import Timer
from octopus.timers import call_regularly
from octopus.transports.base import Consumer, Producer, TransactionalProducer, Transport
from octopus.transports.opening import connect, consumer_options, make_producer, producer_options
from octopus.transports.threaded import ThreadedConsumer
from octopus.transports.topic_creation import TopicCreatingProducer
from octopus.worker.absence import AbsenceWatch
from octopus.worker.group import GroupWorker
from octopus.worker.known_topics import KnownTopics
from octopus.worker.outlook import BrokerWatch
from octopus.worker.status import WorkerStatus, unreadable_of
from octopus.worker.transactions import TransactionalCommits
from octopus.worker.watchdog import LoopWatchdog

logger = get_logger("octopus.worker")

LOOK_AGAIN = 0.05
"""Seconds until a second look at a task that says it is being cancelled."""

REBUILD_WAIT = (0.2, 30.0)
"""Seconds before a broken consumer is replaced: first, longest."""


class Worker:
    """Runs an app in the current event loop; never touches signal handlers or the loop policy.

        async with Worker(app, settings) as worker:
            await worker.wait()

    Leaving the block drains: what runs finishes within `worker.drain_timeout`, is committed, and the groups are left.
    A worker runs once, in the event loop and process that entered the block.

    Args:
        app: What to run.
        settings: How.
        only: Names of handlers; all when empty.
        transport: Where; made from the settings when None.
        threaded: Whether consumers live in a thread of their own, so that a handler that blocks the loop does not cost
            the group membership.
        clock: Seconds since the epoch, for retries that wait in a topic.
        place: Its name in its groups, which a replacement takes over if it dies; a stop gives it up.
    """

    def __init__(
        self,
        app: Application,
        settings: Settings,
        *,
        only: Sequence[str] = (),
        transport: Transport | None = None,
        threaded: bool = False,
        clock: Callable[[], float] = time.time,
        place: str | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self._only = only
        self._transport = transport or connect(settings, client_id=app.name)
        self._threaded = threaded
        self._clock = clock
        self._place = place
        self._stack = AsyncExitStack()
        self._groups: dict[str, GroupWorker] = {}
        self._finished = asyncio.Event()
        self._failures: list[BaseException] = []
        self._running: set[str] = set()
        self._is_ending = False
        self._slow: tuple[str, float] | None = None
        self._broker_watch = BrokerWatch(self._transport, self._partitions)
        self._home: Home | None = None

    # ── lifetime ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        if self._home is not None:
            raise ConfigurationError(f"This worker of {self.app.name} has been started before. Make another one.")
        self._home = Home()
        self._started = time.monotonic()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        stack, transport = self._stack, self._transport
        await transport.open()
        stack.push_async_callback(transport.close)
        producer = make_producer(transport, self.settings)
        await producer.start()
        stack.push_async_callback(producer.stop)
        self._mend = producer.mend
        outlet: Producer = producer
        if any(route.delivery == "exactly_once" for route in self.app.routes):
            outlet = CapturingProducer(producer, producer.ensure)
        pipelines = self.app.pipelines(outlet, self.settings, self._only, clock=self._clock)
        await self._create_topics(producer, pipelines)
        await stack.enter_async_context(self.app.serving(outlet))
        tasks = _Tasks()
        stack.push_async_callback(self._end, tasks)
        self._watchdog = LoopWatchdog(self.settings.worker.loop_block_warning, self.running_handlers)
        self._watchdog.start()
        stack.callback(self._watchdog.stop)
        if not self._only:
            for timer in self.app.timers:
                tasks.start(call_regularly(timer, _note_failed_timer), f"octopus timer {timer.name}")
        tasks.start(self._notice_slow(), "octopus slowest")
        tasks.start(self._broker_watch.run(), "octopus broker watch")
        absence_watch = AbsenceWatch(transport, lambda: self._groups, self.settings.consumer)
        tasks.start(absence_watch.run(), "octopus absence watch")
        self._running = {pipeline.group for pipeline in pipelines}
        together: dict[str, list[asyncio.Task[None]]] = {}
        for pipeline in pipelines:
            group = tasks.start(self._keep_running(pipeline), f"octopus group {pipeline.group}")
            together.setdefault(pipeline.stops_with, []).append(group)
            group.add_done_callback(partial(self._note_end, pipeline.group, together[pipeline.stops_with]))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._home is not None and self._home.was_forked:
            return  # sockets are shared with the parent: it would leave the group in its parent's name
        self._check_home()
        await self._stack.aclose()

    async def wait(self) -> None:
        """Wait until every group has ended, which none does unless its processing stopped.

        Raises:
            HandlerStopped: Processing of at least one group stopped; nothing of it was lost.
            TransportError: The broker refuses for good.
        """
        self._check_home()
        await self._finished.wait()
        if self._failures:
            raise self._failures[0]

    async def caught_up(self) -> None:
        """Wait until everything published before now is settled.

        What never will be is not waited for, a group that stopped or a partition that cannot be read on; all the rest is, and
        then it is said.

        Raises:
            HandlerStopped: Processing of at least one group stopped, or a partition cannot be read on; nothing of it was lost.
            TransportError: The broker refuses a group for good.
        """
        self._check_home()
        while not self._finished.is_set():
            # An outage only means "not yet"; when it is final the group ends, and so does this.
            with contextlib.suppress(TransportError):
                if self._running <= self._groups.keys():
                    states = [await self._groups[name].is_caught_up() for name in [*self._running]]
                    if all(states):
                        break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._finished.wait()
        if self._failures:
            raise self._failures[0]
        if unreadable := unreadable_of(self.status()):
            # The ends of partitions that cannot be read are not known yet, and they say how much is left.
            await self._broker_watch.ask()
            raise HandlerStopped(f"not everything can be read: {'; '.join(unreadable)}")

    @property
    def failures(self) -> list[BaseException]:
        """Why groups ended, if some did."""
        return [*self._failures]

    async def ping(self) -> None:
        """See that the broker answers every group.

        Raises:
            TransportError: It does not answer one of them.
        """
        self._check_home()
        await asyncio.gather(*[group.ping() for group in self._groups.values()])

    def status(self) -> WorkerStatus:
        """Return a snapshot for people and health checks."""
        return WorkerStatus(
            app=self.app.name,
            broker=self._transport.address,
            uptime=time.monotonic() - self._started,
            groups=tuple(group.status() for _, group in sorted(self._groups.items())),
            slowest=self._slow,
            outage=self._broker_watch.outlook.trouble,
            away=self._broker_watch.away,
        )

    def _check_home(self) -> None:
        if self._home is None:
            raise ConfigurationError(f"This worker of {self.app.name} has not been started: use it in `async with`.")
        self._home.check(
            f"The worker of {self.app.name}",
            "Use it there, or run another one here: `async with app.running():`.",
        )

    # ── groups ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep_running(self, pipeline: Pipeline) -> None:
        """Run a group; replace its consumer when that breaks and a new one may do better."""
        wait, longest = REBUILD_WAIT
        # A retry topic is ours: if it is gone, so is what waited in it, and a new one is read from its beginning.
        known = KnownTopics(
            "earliest" if isinstance(pipeline, RetryPipeline) else self.settings.consumer.recreated_topics
        )
        while True:
            before = self._groups.get(pipeline.group)
            worker = self._groups[pipeline.group] = self._group(pipeline, known)
            if before is not None:
                worker.continue_from(before.counts)
            began = time.monotonic()
            error = await self._failure_of(worker)
            match worker.stopped, error:
                case HandlerStopped() as stopped, _:
                    _raise_through(stopped.__cause__)
                    self._failures.append(stopped)
                    return
                case None, OctopusError() if _is_passing(error):
                    if time.monotonic() - began > longest:
                        wait = REBUILD_WAIT[0]
                    level = logging.WARNING if worker.outlook.trouble is None else logging.DEBUG  # said already
                    logger.log(level, "%s: %s; connecting again in %.1f s", pipeline.group, error, wait)
                    await self._broker_watch.pause(wait)
                    wait = min(wait * 2, longest)
                case None, OctopusError():
                    logger.error("%s ends: %s", pipeline.group, error)
                    self._failures.append(error)
                    return
                case _:
                    raise AssertionError("a group runs until it is stopped, cancelled, or something breaks")

    async def _failure_of(self, worker: GroupWorker) -> OctopusError | None:
        """Run a group until its processing stops or its consumer breaks; return what that broke with."""
        try:
            await worker.run()
        except OctopusError as error:
            worker.failure = error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                # Only this hears of what went wrong while the group left.
                self._failures += [each for each in (worker.stopped, worker.unsaved) if each is not None]
                raise
            # No caller asked for it: the client lost a task of its own.
            worker.failure = ConnectionFailed("the client was cancelled from inside")
        return worker.failure

    def _group(self, pipeline: Pipeline, known: KnownTopics) -> GroupWorker:
        options = consumer_options(self.settings.consumer, self.settings.worker, self._place)
        outlook = self._broker_watch.outlook
        if pipeline.delivery == "at_least_once":
            return GroupWorker(
                pipeline, self._consumer(pipeline, options), self.settings.worker, time.time(), known, outlook
            )
        options["isolation"] = "read_committed"  # what is aborted must not be handled either

        def producer(transactional_id: str) -> TransactionalProducer:
            return self._transport.transactional_producer(transactional_id, **producer_options(self.settings.producer))

        return GroupWorker(
            pipeline,
            self._consumer(pipeline, options),
            self.settings.worker,
            time.time(),
            known,
            outlook,
            partial(TransactionalCommits, producer=producer, mend=self._mend),
        )

    def _consumer(self, pipeline: Pipeline, options: dict[str, Any]) -> Consumer:
        def make() -> Consumer:
            return self._transport.consumer(pipeline.group, pipeline.topics, **options)

        # librdkafka has threads of its own
        return ThreadedConsumer(make) if self._threaded and self.settings.consumer.engine == "aiokafka" else make()

    async def _create_topics(self, producer: TopicCreatingProducer, pipelines: Sequence[Pipeline]) -> None:
        topics = {topic for pipeline in pipelines for topic in pipeline.topics_by_name}
        retries = [pipeline for pipeline in pipelines if isinstance(pipeline, RetryPipeline)]
        sources = {topic: pipeline.sources for pipeline in retries for topic in pipeline.topics_by_name}
        await producer.ensure(topics, sources)

    # ── side by side with the groups ──────────────────────────────────────────────────────────────────────────────

    async def _end(self, tasks: "_Tasks") -> None:
        self._is_ending = True
        await tasks.cancel()

    def _note_end(self, group: str, together: list[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        self._running.discard(group)
        is_wanted = self._is_ending or any(other.done() for other in together if other is not task)
        for other in together:  # where handlers stop, their retries do, and the other way round
            if other is not task:
                _cancel_once(other)
        error: BaseException | None = None
        if not task.cancelled():
            error = task.exception()
        elif not is_wanted:
            error = RuntimeError("its task was cancelled from outside")
        if error is not None:
            logger.error("%s ended: %s: %s", task.get_name(), type(error).__name__, error, exc_info=error)
            self._failures.append(error)
            self._finished.set()
        if not self._running:
            self._finished.set()

    async def _notice_slow(self) -> None:
        """Keep the handler that has run longest, of those seen at two looks in a row."""
        seen: dict[tuple[int, int], float] = {}
        while True:
            await asyncio.sleep(0.25)
            now = time.monotonic()
            current: dict[tuple[int, int], float] = {}
            self._slow = None
            for name, group in self._groups.items():
                for assignment, _, serial in group.runner.running:
                    began = current[id(assignment), serial] = seen.get((id(assignment), serial), now)
                    if now > began and (self._slow is None or now - began > self._slow[1]):
                        self._slow = name, now - began
            seen = current

    def _partitions(self) -> set[TopicPartition]:
        return {partition for group in self._groups.values() for partition in group.partitions}

    def running_handlers(self) -> list[str]:
        """Name the handlers that run now, with what they run."""
        return [
            f"{'/'.join(group.pipeline.handlers)} ({assignment.partition}@{record.offset})"
            for group in [*self._groups.values()]
            for assignment, record, _ in group.runner.running
        ]


def _raise_through(cause: BaseException | None) -> None:
    """Raise what stopped processing and is no Exception: it goes all the way.

    SystemExit and KeyboardInterrupt did so already: they leave the event loop from any task that raises them.
    """
    if cause is not None and not isinstance(cause, Exception | SystemExit | KeyboardInterrupt):
        raise cause


def _is_passing(error: OctopusError) -> bool:
    """Tell whether a new consumer may do better.

    A partition that is another member's by now is not this group's end. Nor is a topic that was there when the worker began: it is
    made again, or a broker that has just come back has not heard of it yet.
    """
    return isinstance(error, PartitionLost | TopicNotFound) or (isinstance(error, TransportError) and error.retryable)


def _note_failed_timer(timer: Timer, error: Exception) -> None:
    logger.error("timer %s failed; it is called again in %g s", timer.name, timer.seconds, exc_info=error)


def _cancel_once(task: asyncio.Task[None]) -> None:
    """Cancel a task unless it is about to end in its own time: `asyncio.run` cancels everything, too.

    A task whose `asyncio.timeout` has just run out says for a moment that it is being cancelled, and goes on.
    """
    if task.done():
        return
    if task.cancelling():
        task.get_loop().call_later(LOOK_AGAIN, _cancel_once, task)
    else:
        task.cancel()


class _Tasks:
    """Tasks with a common end."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def cancel(self) -> None:
        for task in self._tasks:
            _cancel_once(task)
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("while stopping: %s: %s", type(result).__name__, result)
