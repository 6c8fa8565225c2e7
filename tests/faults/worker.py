"""A worker process under test: `python -m tests.faults.worker PLAN` runs `run_process` with a handler that keeps a diary.

Every run of the handler is written down before it does anything, and its effect before it returns.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from octopus import Event, Octopus, Reject, RetryLater, RetryPolicy, config
from octopus.config import Settings
from octopus.events import TopicPartition
from octopus.logs import ENGINE
from octopus.testing.faults import Mischief, die, end_with_parent, first_time, hang, hang_on
from octopus.testing.history import Began, Finished, Note
from octopus.transports.opening import connect
from octopus.worker import run_process
from tests.faults.jobs import FILTER, RENEWED, Job, WorkerPlan, outputs_of, recreated_of, topic_of_life
from tests.faults.journal import Journal, now
from tests.faults.recording import RecordingTransport


class Diary:
    """Does what jobs say and writes down what it does."""

    def __init__(self, plan: WorkerPlan) -> None:
        self.journal = Journal(Path(plan.directory) / f"{plan.name}-{os.getpid()}.history", durable=plan.durable)
        self._marks = Path(plan.directory)
        self._who = f"{plan.name}-{os.getpid()}"
        self._runs = count()

    async def handle(self, events: Sequence[Event[Job]]) -> None:
        run = self._begin(events)
        failed = True
        try:
            for event in events:
                await self._do(event.value)
            failed = False
        finally:
            self._end(events, run, failed)

    async def handle_renewed(self, event: Event[Job]) -> None:
        """Of a topic that is made again, keep the ends of runs only."""
        at = TopicPartition(topic_of_life(event.value.id, event.topic), event.partition)
        failed = True
        try:
            if event.value.does == "later" and self._is_first(event.value):
                raise RetryLater(20)  # beyond `defer_beyond`: in the retry topic
            self._fail(event.value)
            failed = False
        finally:
            end = Finished(
                time=now(),
                worker=self._who,
                at=at,
                offset=event.offset,
                id=event.value.id,
                run=RENEWED,
                failed=failed,
            )
            self.journal.write_effects(end)

    def handle_in_thread(self, event: Event[Job]) -> None:
        run = self._begin([event])
        failed = True
        try:
            time.sleep(event.value.takes)
            self._fail(event.value)
            failed = False
        finally:
            self._end([event], run, failed)

    def _begin(self, events: Sequence[Event[Job]]) -> int:
        run = next(self._runs)
        self.journal.write(
            *(
                Began(time=now(), worker=self._who, at=_at(event), offset=event.offset, id=event.value.id, run=run)
                for event in events
            )
        )
        return run

    def _end(self, events: Sequence[Event[Job]], run: int, failed: bool) -> None:
        self.journal.write_effects(
            *(
                Finished(
                    time=now(),
                    worker=self._who,
                    at=_at(event),
                    offset=event.offset,
                    id=event.value.id,
                    run=run,
                    failed=failed,
                )
                for event in events
            )
        )
        for event in events:
            if event.value.does == "die after" and not failed and self._is_first(event.value):
                die()

    async def _do(self, job: Job) -> None:
        if job.takes and job.does not in ("hang on", "block"):
            await asyncio.sleep(job.takes)
        match job.does:
            case "die" if self._is_first(job):
                die()
            case "hang" if self._is_first(job):
                await hang()
            case "hang on" if self._is_first(job):
                await hang_on(job.takes)
            case "block" if self._is_first(job):
                time.sleep(job.takes)
            case "mischief" if self._is_first(job):
                raise Mischief(job.id)
            case "exit" if self._is_first(job):
                raise SystemExit(17)
            case _:
                self._fail(job)

    def _fail(self, job: Job) -> None:
        match job.does:
            case "fail":
                raise ValueError(job.id)
            case "fail once" if self._is_first(job):
                raise ValueError(job.id)
            case "reject":
                raise Reject("as it says")
            case "later" if self._is_first(job):
                raise RetryLater(0.02)

    def _is_first(self, job: Job) -> bool:
        return first_time(self._marks / f"{job.id}.done")


def _at(event: Event[Any]) -> TopicPartition:
    return TopicPartition(event.topic, event.partition)


def app_of(plan: WorkerPlan, diary: Diary) -> Octopus:
    """Return the app under test."""
    app = Octopus(plan.app)
    options: dict[str, Any] = {
        "retry": RetryPolicy(attempts=plan.attempts, backoff=0.02, maximum=0.2),
        "start": plan.start,
        "timeout": plan.timeout,
        "dead_letter": plan.dead_letter,
        "filter": FILTER,
    }
    out, side = outputs_of(plan.topic)
    if plan.delivery == "exactly_once":
        options |= {"delivery": "exactly_once", "to": out}
    elif plan.publishes:
        options |= {"to": out}

    async def publish(event: Event[Job]) -> dict[str, str]:
        """Do what a handler does that delivers exactly once: publish something and return something."""
        await app.publish(side, {"id": event.value.id}, key=event.key)
        return {"id": event.value.id}

    if plan.ordering == "batch":

        @app.on(plan.topic, batch=8, within=0.02, name="handle", **options)
        async def handle_batch(events: list[Event[Job]]) -> Any:
            await diary.handle(events)
            if plan.delivery == "exactly_once":
                return [await publish(event) for event in events]
            return [{"id": event.value.id} for event in events] if plan.publishes else None

    elif plan.kind == "thread":

        @app.on(plan.topic, ordering=plan.ordering, concurrency=plan.concurrency, name="handle", **options)
        def handle_in_thread(event: Event[Job]) -> Any:
            diary.handle_in_thread(event)
            return {"id": event.value.id} if plan.publishes else None

    else:

        @app.on(plan.topic, ordering=plan.ordering, concurrency=plan.concurrency, name="handle", **options)
        async def handle(event: Event[Job]) -> Any:
            if plan.delivery == "exactly_once":
                output = await publish(event)  # before the rest may fail: nothing of it may be seen then
                await diary.handle([event])
                return output
            await diary.handle([event])
            return {"id": event.value.id} if plan.publishes else None

    if plan.recreated:
        renewed = recreated_of(plan.topic)

        @app.on(renewed, to=f"{renewed}.out", retry=options["retry"], retry_topic=True)
        async def renew(event: Event[Job]) -> dict[str, str]:
            await diary.handle_renewed(event)
            return {"id": event.value.id}

    return app


def let_clock_jump(seconds: float) -> None:
    """Make `time.time` of this process unreliable from now on."""
    true, calls = time.time, count()
    time.time = lambda: true() + seconds * (next(calls) // 10 % 3 - 1)


def main(text: str) -> int:
    """Run a worker until it is stopped; return its exit code."""
    end_with_parent()
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger(ENGINE).setLevel(logging.INFO)  # silent by default; who looks for a fault wants to see it
    plan = msgspec.json.decode(text, type=WorkerPlan)
    if plan.clock_jumps:
        let_clock_jump(plan.clock_jumps)
    diary = Diary(plan)
    diary.journal.write(Note(time=now(), what="worker starts", who=plan.name))

    def recording(settings: Settings, **options: Any) -> RecordingTransport:
        transport = RecordingTransport(
            connect(settings, **options),
            diary.journal,
            f"{plan.name}-{os.getpid()}",
            published=outputs_of(plan.topic)[:1] if plan.publishes else (),
        )
        if plan.fetch_dies_after is not None:
            threading.Timer(plan.fetch_dies_after, transport.kill_fetch_task).start()
        return transport

    settings = config.load(config.merge({"brokers": plan.brokers.split(",")}, plan.settings))
    code = run_process(app_of(plan, diary), settings, connect=recording)
    diary.journal.write(Note(time=now(), what="worker ends", who=plan.name))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
