"""How workers begin and end: lifespan, start and stop, outages, timers, threads, topics."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from octopus import Event, Octopus, config
from octopus.errors import (
    AuthError,
    ConfigurationError,
    ConnectionFailed,
    HandlerStopped,
    NotAuthorized,
    TopicNotFound,
    TransportError,
)
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.memory.transport import MemoryConsumer
from octopus.worker import Worker
from octopus.worker.worker import _Tasks
from tests.staged import committed, publish, until, working


class WatchedTransport(MemoryTransport):
    """Remembers what was opened and closed, and fails where it is told to."""

    def __init__(self, broker: MemoryBroker, fail: str = "") -> None:
        super().__init__(broker)
        self.log: list[str] = []
        self.fail = fail

    def note(self, what: str) -> None:
        self.log.append(what)
        if what == self.fail:
            raise NotAuthorized(f"{what} is not allowed")

    async def open(self) -> None:
        self.note("open")

    async def close(self) -> None:
        self.note("close")

    def consumer(self, *arguments: Any, **options: Any) -> Any:
        consumer = super().consumer(*arguments, **options)
        start, stop = consumer.start, consumer.stop

        async def noted_start(listener: Any) -> None:
            self.note("consumer start")
            await start(listener)

        async def noted_stop() -> None:
            self.note("consumer stop")
            await stop()

        consumer.start, consumer.stop = noted_start, noted_stop  # type: ignore[method-assign]
        return consumer


def worker_on(app: Octopus, transport: MemoryTransport, **given: Any) -> Worker:
    return Worker(app, config.load(config.merge({"topics": {"partitions": 1}}, given)), transport=transport)


# ── begin and end ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_lifespan_is_entered_before_the_first_record_and_left_after_the_last(
    virtual_time: VirtualTime,
) -> None:
    log: list[str] = []
    broker = MemoryBroker()

    @asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        await asyncio.sleep(5)
        app.state.database = "open"
        await app.publish("began", 1)
        log.append("enter")
        yield
        await app.publish("ended", 1)
        log.append("exit")

    app = Octopus("app", lifespan=lifespan)

    @app.on("t")
    async def handle(value: int) -> None:
        assert app.state.database == "open"
        await asyncio.sleep(3)
        log.append(f"record {value}")

    publish(broker, 0, 1)
    async with working(app, broker):
        await until(lambda: len(log) == 2)
    assert log == ["enter", "record 0", "record 1", "exit"]
    assert broker.log(TopicPartition("began", 0)).end == broker.log(TopicPartition("ended", 0)).end == 1


async def test_a_start_up_hook_that_fails_consumes_nothing_and_closes_everything(virtual_time: VirtualTime) -> None:
    broker, before = MemoryBroker(), asyncio.all_tasks()

    @asynccontextmanager
    async def lifespan(_app: Octopus) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    app = Octopus("app", lifespan=lifespan)

    @app.on("t")
    async def handle(value: int) -> None:
        raise AssertionError("nothing is consumed")

    publish(broker, 1)
    transport = WatchedTransport(broker)
    with pytest.raises(OSError, match="no database"):
        async with worker_on(app, transport):
            raise AssertionError("never entered")
    assert transport.log == ["open", "close"]
    assert asyncio.all_tasks() == before
    assert committed(broker, "app.handle") is None


@pytest.mark.parametrize("threaded", [False, True], ids=["in the loop", "in a thread"])
async def test_starting_and_stopping_again_and_again_leaves_nothing_behind(threaded: bool) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    @app.every(0.001)
    async def tick() -> None: ...

    tasks, threads = asyncio.all_tasks(), threading.active_count()
    times = 20 if threaded else 50
    for number in range(times):
        async with working(app, broker, threaded=threaded):
            publish(broker, number)
            await until(lambda number=number: number in seen)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    await until(lambda: threading.active_count() <= threads + 1)  # one may be the loop's own executor
    assert seen == [*range(times)]


async def test_two_apps_run_in_one_loop(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    one, two = Octopus("one"), Octopus("two")

    @one.on("t", to="u")
    async def relay(value: int) -> int:
        return value + 1

    @two.on("u")
    async def store(value: int) -> None:
        seen.append(value)

    async with working(one, broker), working(two, broker):
        await one.publish("t", 1)
        await until(lambda: seen == [2])


async def test_one_app_twice_in_one_loop_publishes_as_long_as_one_of_them_runs(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    first, second = working(app, broker), working(app, broker)
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    await app.publish("t", 1)
    await second.__aexit__(None, None, None)
    with pytest.raises(ConfigurationError, match="app is not connected"):
        await app.publish("t", 1)


class SlowTransport(MemoryTransport):
    """Takes its time to connect consumers."""

    def consumer(self, *arguments: Any, **options: Any) -> Any:
        consumer = super().consumer(*arguments, **options)
        start = consumer.start

        async def slowly(listener: Any) -> None:
            await start(listener)
            await asyncio.sleep(30)

        consumer.start = slowly  # type: ignore[method-assign]
        return consumer


@pytest.mark.parametrize("threaded", [False, True], ids=["in the loop", "in a thread"])
async def test_a_stop_during_start_leaves_the_group(threaded: bool) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    tasks = asyncio.all_tasks()
    settings = config.load({"topics": {"partitions": 1}})
    async with asyncio.timeout(30):
        async with Worker(app, settings, transport=SlowTransport(broker), threaded=threaded):
            await until(lambda: broker.group("app.handle").members)
    assert broker.group("app.handle").members == {}
    assert asyncio.all_tasks() == tasks


async def test_a_stop_during_a_rebalance_ends_in_time(virtual_time: VirtualTime) -> None:
    app, broker, began = Octopus("app"), MemoryBroker(), asyncio.Event()

    @app.on("t")
    async def handle(value: int) -> None:
        began.set()
        await asyncio.sleep(3600)

    publish(broker, 1)
    started = virtual_time.time()
    async with working(app, broker, worker={"revoke_budget": 60, "drain_timeout": 5}):
        await began.wait()
        broker._rebalance(broker.group("app.handle"))
        await asyncio.sleep(1)
    assert virtual_time.time() - started < 10
    assert broker.group("app.handle").members == {}
    assert committed(broker, "app.handle") == 0


async def test_a_stop_during_an_outage_ends_in_time(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    started = virtual_time.time()
    async with working(app, broker):
        await until(lambda: committed(broker, "app.handle") == 0)
        for what in ("fetch", "commit", "committed"):
            broker.faults.fail_next(what, ConnectionFailed("away"), times=10_000)
        publish(broker, 1)
        await asyncio.sleep(60)
    assert virtual_time.time() - started < 120
    assert broker.group("app.handle").members == {}


# ── outages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_broken_consumer_is_replaced_after_a_growing_wait(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)
        broker.faults.fail_next("fetch", ConnectionFailed("no broker answers"), times=5)
        publish(broker, 1)
        await until(lambda: seen == [1], 60)
        await worker.caught_up()
    waits = [record.message.rpartition(" in ")[2] for record in caplog.records if "connecting again" in record.message]
    assert waits == ["0.2 s", "0.4 s", "0.8 s", "1.6 s", "3.2 s"]
    assert committed(broker, "app.handle") == 1


async def test_a_cancellation_that_nobody_asked_for_replaces_the_consumer_and_does_not_end_the_worker(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, broker, seen, stop = Octopus("app"), MemoryBroker(), [], MemoryConsumer.stop

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async def stop_and_leak(consumer: MemoryConsumer) -> None:
        """Stop as a client does that awaits a task which it cancelled."""
        await stop(consumer)
        monkeypatch.setattr(MemoryConsumer, "stop", stop)
        raise asyncio.CancelledError

    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)
        monkeypatch.setattr(MemoryConsumer, "stop", stop_and_leak)
        broker.faults.fail_next("fetch", ConnectionFailed("no broker answers"))
        publish(broker, 1)
        await until(lambda: seen == [1], 60)
        assert worker.failures == []


async def test_catching_up_waits_for_the_end_of_an_outage(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async with working(app, broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)
        consumer = worker._groups["app.handle"]._consumer
        offsets, failures = consumer.offsets, [ConnectionFailed("away")] * 3

        async def sometimes(*arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return await offsets(*arguments)

        consumer.offsets = sometimes  # type: ignore[method-assign]
        publish(broker, 1)
        await worker.caught_up()
        assert seen == [1]
        assert failures == []


async def test_a_topic_that_a_broker_has_not_heard_of_yet_is_asked_for_again(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async with working(app, broker) as worker:
        broker.faults.fail_next("fetch", TopicNotFound("topic 't'"))
        publish(broker, 1)
        await worker.caught_up()
        assert seen == [1]
        assert worker.failures == []
    assert "app.handle: topic 't'; connecting again in" in caplog.text


@pytest.mark.parametrize("error", [NotAuthorized("group app.handle"), AuthError("the token was refused")], ids=repr)
async def test_an_error_that_will_not_pass_ends_the_group_with_its_message(
    error: TransportError, virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None: ...

    async with working(app, broker) as worker:
        broker.faults.fail_next("fetch", error)
        with pytest.raises(type(error), match=str(error)):
            await worker.wait()
        assert worker.failures == [error]
    assert f"app.handle ends: {error}" in caplog.text


async def test_a_fetch_that_never_comes_back_costs_the_consumer_its_place(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async with working(app, broker, worker={"stall_timeout": 20}) as worker:
        await until(lambda: committed(broker, "app.handle") == 0)

        async def hang(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(36_000)

        worker._groups["app.handle"]._consumer.fetch = hang  # type: ignore[method-assign]
        await asyncio.sleep(1)
        publish(broker, 1)
        await until(lambda: seen == [1], 60)
    assert "did not come back for 20 s" in caplog.text


async def test_a_consumer_that_takes_long_to_start_is_asked_nothing_before(virtual_time: VirtualTime) -> None:
    class SlowTransport(MemoryTransport):
        def consumer(self, *arguments: Any, **options: Any) -> Any:
            consumer = super().consumer(*arguments, **options)
            start, topic_ids = consumer.start, consumer.topic_ids

            async def slow_start(listener: Any) -> None:
                await asyncio.sleep(30)
                log.append("started")
                await start(listener)

            async def noted(topics: Any) -> Any:
                log.append("asked")
                return await topic_ids(topics)

            consumer.start, consumer.topic_ids = slow_start, noted  # type: ignore[method-assign]
            return consumer

    app, log = Octopus("app"), list[str]()

    @app.on("t")
    async def handle(value: int) -> None:
        pass

    async with worker_on(app, SlowTransport(MemoryBroker())):
        await until(lambda: log.count("asked") > 1, 90)
    assert log[0] == "started"


# ── timers ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_timers_never_overlap_and_outlive_their_failures(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, calls, running = Octopus("app"), [], [0]

    @app.every(10)
    async def slow() -> None:
        running[0] += 1
        assert running == [1]
        calls.append(("slow", virtual_time.time() - began))
        await asyncio.sleep(25)
        running[0] -= 1

    @app.every(timedelta(seconds=40), name="failing")
    async def fails() -> None:
        calls.append(("fails", virtual_time.time() - began))
        raise ValueError("not today")

    class Object:
        async def __call__(self) -> None:
            calls.append(("object", virtual_time.time() - began))

    app.every(60)(Object())
    began = virtual_time.time()
    async with working(app):
        await asyncio.sleep(90)
    times: dict[str, list[float]] = {}
    for name, moment in calls:
        times.setdefault(name, []).append(round(moment))
    assert times == {"slow": [10, 35, 60, 85], "fails": [40, 80], "object": [60]}
    assert caplog.text.count("timer failing failed; it is called again in 40 s") == 2


async def test_a_sync_timer_runs_in_a_thread() -> None:
    app, threads = Octopus("app"), []

    @app.every(0.01)
    def tick() -> None:
        threads.append(threading.current_thread())

    async with working(app):
        await until(lambda: len(threads) > 2)
    assert threading.current_thread() not in threads


async def test_a_selection_of_handlers_runs_alone_and_without_timers(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def one(value: int) -> None:
        seen.append("one")

    @app.on("t")
    async def two(value: int) -> None:
        seen.append("two")

    @app.every(1)
    async def tick() -> None:
        seen.append("tick")

    publish(broker, 1)
    async with working(app, broker, only=["one", "one"]):
        await asyncio.sleep(10)
    assert seen == ["one"]
    with pytest.raises(ConfigurationError, match="app has no handler 'three'; it has one, two"):
        async with working(app, broker, only=["three"]):
            pass


# ── threads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_consumer_in_a_thread_delivers_commits_and_rebalances() -> None:
    broker, seen = MemoryBroker(), []
    broker.create_topic("t", 2)

    def make() -> Octopus:
        app = Octopus("app")

        @app.on("t")
        async def handle(event: Event[int]) -> None:
            await asyncio.sleep(0.001)
            seen.append(event.value)

        return app

    for number in range(40):
        publish(broker, number, partition=number % 2)
    async with working(make(), broker, threaded=True) as first:
        async with working(make(), broker, threaded=True) as second:
            await first.caught_up()
            await second.caught_up()
        await until(lambda: len(first.status().groups[0].partitions) == 2)
        publish(broker, 40, partition=1)
        await first.caught_up()
    assert sorted(seen) == [*range(41)]


async def test_a_blocked_loop_is_reported_with_the_handlers_name(caplog: pytest.LogCaptureFixture) -> None:
    app, broker, done = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def frozen(value: int) -> None:
        time.sleep(0.3)
        done.append(value)

    publish(broker, 1)
    with caplog.at_level(logging.WARNING):
        async with working(app, broker, worker={"loop_block_warning": 0.05}):
            await until(lambda: done)
    (report,) = [record.message for record in caplog.records if "has not turned" in record.message]
    assert "while frozen (t[0]@0) is running" in report
    assert "test_lifetime.py" in report
    assert "in frozen" in report


async def test_without_a_limit_nobody_watches_the_loop() -> None:
    async with working(Octopus("app"), worker={"loop_block_warning": 0}):
        assert not any(thread.name == "octopus watchdog" for thread in threading.enumerate())


# ── topics ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_missing_topics_are_made_where_that_is_allowed(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker(auto_create=0)

    @app.on(["a", "b"], to="c")
    async def handle(value: int) -> int:
        return value

    async with working(app, broker, topics={"partitions": 3}) as worker:
        await app.publish("a", 1)
        await worker.caught_up()
    assert {name: len(logs) for name, logs in broker.topics.items()} == {"a": 3, "b": 3, "c": 3}


async def test_missing_topics_are_an_error_where_that_is_not_allowed() -> None:
    app, broker = Octopus("app"), MemoryBroker(auto_create=0)

    @app.on("a")
    async def handle(value: int) -> None: ...

    with pytest.raises(TopicNotFound, match=r"topic 'a' does not exist on memory:// and topics\.create is off"):
        async with working(app, broker, topics={"create": False}):
            pass


async def test_a_principal_that_may_not_make_topics_is_told_what_to_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    app, broker = Octopus("app"), MemoryBroker(auto_create=0)

    @app.on("a")
    async def handle(value: int) -> None: ...

    def refuse(*_: Any) -> bool:
        raise NotAuthorized("create is denied")

    monkeypatch.setattr(broker, "create_topic", refuse)
    with pytest.raises(NotAuthorized, match="Ask the operator for it: octopus topics create a"):
        async with working(app, broker):
            pass


# ── status ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_status_tells_what_a_worker_is_doing(virtual_time: VirtualTime) -> None:
    app, broker, release = Octopus("app"), MemoryBroker(), asyncio.Event()

    @app.on("t", ordering="none", concurrency=2)
    async def handle(value: int) -> None:
        await release.wait()

    publish(broker, *range(5))
    async with working(app, broker) as worker:
        assert worker.status().groups == ()
        await until(lambda: worker.status().groups and worker.status().groups[0].running == 2)
        await asyncio.sleep(0.6)
        status = worker.status()
        (group,) = status.groups
        assert (status.app, status.broker, group.group) == ("app", "memory://", "app.handle")
        assert (group.in_flight, group.lag, group.settled) == (5, 5, 0)
        assert group.partitions == (TopicPartition("t", 0),)
        assert status.slowest is not None
        assert status.slowest[0] == "app.handle"
        release.set()
        await worker.caught_up()
        assert worker.status().groups[0].lag == 0


async def test_a_worker_without_handlers_is_caught_up_at_once(virtual_time: VirtualTime) -> None:
    async with working(Octopus("app")) as worker:
        await worker.caught_up()


async def test_waiting_ends_when_every_line_has_stopped(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=1, dead_letter=False)
    async def one(value: int) -> None:
        raise ValueError("no")

    publish(broker, 1)
    async with working(app, broker) as worker:
        with pytest.raises(HandlerStopped):
            await worker.wait()
        with pytest.raises(HandlerStopped):
            await worker.caught_up()


async def test_a_task_whose_timeout_runs_out_as_it_is_to_end_ends() -> None:
    async def work() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()

    tasks = _Tasks()
    task = tasks.start(work(), "work")
    while not task.cancelling():  # by its own timeout
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await tasks.cancel()
    assert task.cancelled()
