"""The function that Lambda calls: event in, batch item failures out."""

import asyncio
import contextvars
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from octopus import config
from octopus.application import Application
from octopus.errors import ConfigurationError, HandlerStopped
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.pipeline import Pipeline
from octopus.triggers.aws.delivery import Delivery
from octopus.triggers.aws.event import KafkaEvent, decode
from octopus.triggers.aws.producer import LazyProducer
from octopus.triggers.aws.shutdown import when_terminated

logger = get_logger("octopus.triggers")

Failures = dict[str, list[dict[str, dict[str, Any]]]]
"""`{"batchItemFailures": [{"itemIdentifier": {"partition": "files-0", "offset": 100}}]}`"""


class Context(Protocol):
    """The part of Lambda's context that matters here."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation is cut off."""
        ...


def handler(
    app: Application,
    *,
    only: Sequence[str] = (),
    margin: float = 1.0,
    report_failures: bool = True,
    retry_in_process: bool = False,
    **settings: Any,
) -> "Trigger":
    """Return the app as a Lambda function for a Kafka event source mapping: `lambda_handler = handler(app)`.

    Every handler that reads the record's topic gets it, and the record succeeds when all of them have settled it; so one
    that fails brings it to the others again, which a function for each (`only`) avoids. Records that failed, that were
    not reached in time or that must wait behind these are reported as batch item failures and so delivered again: with
    `ordering="partition"` all records of that partition from the first open one on, else the open records only. The
    service does retries and their waits; `attempt` is 1 in every invocation.

    Settings come from the app, `OCTOPUS_*` variables and `settings`. The Kafka client is connected by the first message
    published, to `brokers` or else to the cluster the event came from.

    Timers (`@app.every`) do not run in a function. The lifespan is entered by the first invocation, and left when the
    environment is shut down; it should not hold a task group, because each invocation is a task of its own.

    Args:
        app: To run.
        only: Names of handlers; all when empty.
        margin: Seconds before the deadline from which on no record is started; half of them are left to running ones.
        report_failures: Whether the event source mapping has ReportBatchItemFailures. If not, the invocation fails as a
            whole when one record does.
        retry_in_process: Whether a retry that falls due in time runs in the same invocation.
        **settings: Over those of the app: `brokers=`, …

    Raises:
        ConfigurationError: A setting, an unknown handler, or one that delivers exactly once or has a retry topic.
    """
    return Trigger(
        app,
        only=only,
        margin=margin,
        report_failures=report_failures,
        retry_in_process=retry_in_process,
        settings=settings,
    )


class Trigger:
    """An app as a Lambda function. See `handler`.

    It owns one event loop, made by the first invocation and kept: clients that handlers hold live on it.
    """

    def __init__(
        self,
        app: Application,
        *,
        only: Sequence[str],
        margin: float,
        report_failures: bool,
        retry_in_process: bool,
        settings: Mapping[str, Any],
    ) -> None:
        if margin < 0:
            raise ConfigurationError(f"margin={margin!r} must not be negative.")
        for route in app.routes:
            if only and route.name not in only:
                continue
            if route.retry_topic:
                raise ConfigurationError(
                    f"handler {route.name!r} has a retry topic, which a function cannot wait for: no process would call it when a "
                    "retry is due. Leave out retry_topic= and let the service deliver again, or run the handler in a worker."
                )
            if route.delivery == "exactly_once":
                raise ConfigurationError(
                    f"handler {route.name!r} wants delivery='exactly_once', which a function cannot give: the event source "
                    "mapping commits the offsets, outside of any transaction. Run it in a worker, or let it be "
                    "'at_least_once' and make what it publishes repeatable."
                )
        self.app = app
        self.settings = config.load_from(
            config.in_code(app.settings), config.in_environment(os.environ), config.in_code(settings)
        )
        self._only = only
        self._margin = margin
        self._report_failures = report_failures
        self._retry_in_process = retry_in_process
        self._loop: asyncio.AbstractEventLoop | None = None
        # Shared by all invocations: handlers see variables that the lifespan sets.
        self._context = contextvars.copy_context()
        self._stack: AsyncExitStack | None = None
        self._pipelines: list[Pipeline] = []
        self._producer: LazyProducer | None = None
        when_terminated(self.close)

    def __call__(self, event: Any, context: Context | None = None) -> Failures:
        """Handle one invocation.

        Raises:
            ConfigurationError: The event does not come from Kafka, or from a topic that no handler reads.
            HandlerStopped: A record failed and `report_failures` is off.
        """
        incoming = decode(event)
        seconds = math.inf if context is None else context.get_remaining_time_in_millis() / 1000
        if self._loop is None:
            # Never asyncio.run: it would close the loop, and with it every client that handlers keep.
            self._loop = asyncio.new_event_loop()
        task = self._loop.create_task(self._handle(incoming, seconds), name="octopus trigger", context=self._context)
        return self._loop.run_until_complete(task)

    def close(self) -> None:
        """Leave the lifespan and close the producer; the next invocation would begin anew."""
        loop, self._loop = self._loop, None
        if loop is None or loop.is_running():
            return  # in the middle of an invocation nothing more can be done; it is delivered again
        try:
            loop.run_until_complete(loop.create_task(self._leave(), context=self._context))
        finally:
            loop.close()

    # ── one invocation ────────────────────────────────────────────────────────────────────────────────────────────

    async def _handle(self, incoming: KafkaEvent, seconds: float) -> Failures:
        if seconds <= self._margin:
            logger.error(
                "nothing is started with %.3f s left, because margin is %g s; give the function a longer timeout",
                seconds,
                self._margin,
            )
            received = incoming.records.items()
            return self._answer(
                incoming, {partition: {each.offset for each in records} for partition, records in received}
            )
        now = asyncio.get_running_loop().time()
        stop_at, cancel_at = now + seconds - self._margin, now + seconds - self._margin / 2
        await self._enter()
        assert self._producer is not None
        self._producer.bootstrap_servers = incoming.bootstrap_servers
        self._check_topics(incoming)
        deliveries = [
            Delivery(pipeline, stop_at=stop_at, cancel_at=cancel_at, retry_in_process=self._retry_in_process)
            for pipeline in self._pipelines
        ]
        for delivery in deliveries:
            delivery.submit(incoming.records)
        left: dict[TopicPartition, set[int]] = {}
        async with asyncio.TaskGroup() as group:
            finished = [group.create_task(delivery.finish()) for delivery in deliveries]
        for task in finished:
            for partition, offsets in task.result().items():
                left.setdefault(partition, set()).update(offsets)
        return self._answer(incoming, left)

    def _check_topics(self, incoming: KafkaEvent) -> None:
        for topic in {partition.topic for partition in incoming.records}:
            if not any(pipeline.reads(topic) for pipeline in self._pipelines):
                names = ", ".join(route.name for pipeline in self._pipelines for route in pipeline.routes)
                raise ConfigurationError(
                    f"The event brings records of topic {topic!r}, which no handler of this function reads "
                    f"({names or 'there is none'}). Point the event source mapping at another topic or add a handler."
                )

    def _answer(self, incoming: KafkaEvent, left: Mapping[TopicPartition, set[int]]) -> Failures:
        open_records = [(partition, offset) for partition in sorted(left) for offset in sorted(left[partition])]
        if open_records:
            total = sum(map(len, incoming.records.values()))
            partition, offset = open_records[0]
            sentence = (
                f"{len(open_records)} of {total} records are to be delivered again, the first is {partition}@{offset}"
            )
            if not self._report_failures:
                raise HandlerStopped(f"{sentence}. Failures are not reported one by one, so the whole batch fails.")
            logger.warning(sentence)
        return {
            "batchItemFailures": [
                {"itemIdentifier": {"partition": f"{partition.topic}-{partition.partition}", "offset": offset}}
                for partition, offset in open_records
            ]
        }

    # ── across invocations ────────────────────────────────────────────────────────────────────────────────────────

    async def _enter(self) -> None:
        if self._stack is not None:
            return
        async with AsyncExitStack() as stack:
            producer = LazyProducer(self.settings, self.app.name)
            stack.push_async_callback(producer.stop)
            pipelines = self.app.pipelines(producer, self.settings, self._only)
            await stack.enter_async_context(self.app.serving(producer))
            self._producer, self._pipelines, self._stack = producer, pipelines, stack.pop_all()
        if self.app.timers:
            logger.info("%s has timers, which do not run in a function", self.app.name)

    async def _leave(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()
