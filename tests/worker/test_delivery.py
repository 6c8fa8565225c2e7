"""What a worker promises about delivery, on the in-process broker."""

import asyncio
from typing import Any

import pytest

from octopus import Event, Octopus, Reject, RetryLater, RetryPolicy
from octopus.errors import ConnectionFailed, HandlerStopped, NotAuthorized
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker
from tests.staged import committed, dead_letters, publish, until, working

QUICK = RetryPolicy(attempts=3, backoff=0.1, jitter=0)


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_transient_error_loses_neither_the_record_nor_those_behind_it(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", retry=QUICK)
    async def handle(event: Event[int]) -> None:
        if event.value == 3 and event.attempt < 3:
            raise OSError("busy")
        seen.append(event.value)

    publish(broker, *range(100))
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert seen == [*range(100)]
    assert dead_letters(broker) == []
    assert committed(broker, "app.handle") == 100


async def test_a_permanent_error_ends_in_the_dead_letter_topic_with_its_cause(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", ordering="key", retry=RetryPolicy(attempts=3, backoff=50, factor=1, jitter=0))
    async def handle(event: Event[int]) -> None:
        seen.append((event.key, event.value, virtual_time.time()))
        if event.value == 0:
            raise ValueError("this one is bad")

    publish(broker, 0, 1, key=b"a", headers=(("trace", b"7"), ("trace", None)), timestamp=1234)
    publish(broker, 2, 3, key=b"b")
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert [(key, value) for key, value, _ in seen if key == b"a"] == [(b"a", 0)] * 3 + [(b"a", 1)]
    bad = [at for _, value, at in seen if value == 0]
    assert all(at < bad[1] for key, _, at in seen if key == b"b"), "other keys go on"
    assert bad[1] - bad[0] == pytest.approx(50, abs=1)
    (dead_letter,) = dead_letters(broker)
    assert (dead_letter.key, dead_letter.value) == (b"a", b"0")
    assert list(dead_letter.headers[:2]) == [("trace", b"7"), ("trace", None)]
    added = {
        name.removeprefix("octopus-dead-letter-"): (value or b"").decode() for name, value in dead_letter.headers[2:]
    }
    assert len(added.pop("traceback")) == 16
    assert added == {
        "reason": "failed 3 times, at last with ValueError: this one is bad",
        "error": "ValueError",
        "topic": "t",
        "partition": "0",
        "offset": "0",
        "timestamp": "1234",
        "attempts": "3",
        "handler": "handle",
    }


async def test_retry_later_comes_back_without_counting_and_reject_goes_at_once(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", retry=2)
    async def handle(event: Event[Any]) -> None:
        seen.append((event.value, event.attempt))
        if event.value == "later" and len(seen) < 6:
            raise RetryLater(30)
        if event.value == "never":
            raise Reject("too old")

    publish(broker, "later", "never")
    async with working(app, broker) as worker:
        await worker.caught_up()
        status = worker.status().groups[0]
    assert seen == [("later", 1)] * 6 + [("never", 1)]
    assert (status.retried, status.dead, status.done) == (5, 1, 1)
    assert dict(dead_letters(broker)[0].headers)["octopus-dead-letter-reason"] == b"too old"


async def test_a_dead_letter_broker_that_is_away_is_waited_for(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=1)
    async def handle(value: int) -> None:
        if value == 1:
            raise ValueError("no")

    async with working(app, broker):
        await until(lambda: committed(broker, "app.handle") == 0)
        publish(broker, 0, 1, 2)
        broker.faults.fail_next("send", ConnectionFailed("away"), times=8)
        await asyncio.sleep(10)
        assert committed(broker, "app.handle") == 1
        assert dead_letters(broker) == []
        await until(lambda: committed(broker, "app.handle") == 3, 60)
        assert len(dead_letters(broker)) == 1


async def test_a_dead_letter_topic_that_refuses_stops_processing(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=1)
    async def handle(value: int) -> None:
        broker.faults.fail_next("send", NotAuthorized("not yours"))
        raise ValueError("no")

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        with pytest.raises(HandlerStopped, match=r"handle cannot write the dead letter of t\[0\]@0 to 't.dead-letter'"):
            await worker.wait()
    assert committed(broker, "app.handle") == 0


async def test_too_many_dead_letters_stop_processing_and_nothing_is_dropped(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=1)
    async def handle(value: int) -> None:
        raise ValueError("all bad")

    publish(broker, *range(20))
    async with working(app, broker, worker={"dead_letter_limit": 3}) as worker:
        with pytest.raises(HandlerStopped, match="3 events died within 60 s, the last because it failed once"):
            await worker.wait()
        assert "died" in (worker.status().groups[0].stopped or "")
    assert len(dead_letters(broker)) == 3
    assert committed(broker, "app.handle") == 3


async def test_dead_letters_that_come_slowly_do_not_stop_processing(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=1)
    async def handle(value: int) -> None:
        await asyncio.sleep(40)
        raise ValueError("bad")

    publish(broker, *range(8))
    async with working(app, broker, worker={"dead_letter_limit": 2}) as worker:
        await worker.caught_up()
    assert len(dead_letters(broker)) == 8


async def test_without_a_dead_letter_topic_processing_stops_and_a_no_is_enough(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=1, dead_letter=False)
    async def handle(value: int) -> None:
        if value == 0:
            raise Reject("not mine")
        raise ValueError("bad")

    publish(broker, 0, 1, 2)
    with pytest.raises(HandlerStopped, match=r"cannot handle t\[0\]@1 .* and has no dead-letter topic"):
        async with working(app, broker) as worker:
            await worker.wait()
    assert committed(broker, "app.handle") == 1
    assert dead_letters(broker) == []


async def test_one_group_that_stops_leaves_the_others_running(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", retry=1, dead_letter=False)
    async def stops(value: int) -> None:
        raise ValueError("bad")

    @app.on("t")
    async def goes_on(value: int) -> None:
        seen.append(value)

    publish(broker, 0)
    async with working(app, broker) as worker:
        await until(lambda: worker.failures)
        publish(broker, 1)
        with pytest.raises(HandlerStopped):
            await worker.caught_up()
        assert seen == [0, 1], "what can be settled is, before that is said"
        assert [bool(group.stopped) for group in worker.status().groups] == [False, True]
        assert not worker._finished.is_set()


class Fatal(BaseException):
    pass


@pytest.mark.parametrize("error", [Fatal("odd"), GeneratorExit("gone"), MemoryError("none left")], ids=repr)
async def test_what_is_no_exception_settles_nothing_and_reaches_whoever_waits(
    error: BaseException, virtual_time: VirtualTime
) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None:
        if value == 1:
            raise error

    publish(broker, 0, 1, 2)
    with pytest.raises(HandlerStopped if isinstance(error, MemoryError) else type(error)):
        async with working(app, broker) as worker:
            await worker.wait()
    assert committed(broker, "app.handle") == 1
    assert dead_letters(broker) == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_exits_go_all_the_way_and_settle_nothing(error: BaseException) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None:
        if value == 1:
            raise error

    async def main() -> None:
        async with working(app, broker) as worker:
            await worker.wait()

    publish(broker, 0, 1, 2)
    with pytest.raises(type(error)):
        asyncio.run(main())
    assert committed(broker, "app.handle") == 1
    assert dead_letters(broker) == []


async def test_a_handler_that_ends_with_cancelled_error_by_itself_has_failed(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", retry=QUICK)
    async def handle(value: int) -> None:
        if value == 0:
            raise asyncio.CancelledError

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    (dead_letter,) = dead_letters(broker)
    assert b"although nobody cancelled it" in dict(dead_letter.headers)["octopus-dead-letter-reason"]


async def test_an_async_handler_is_cancelled_at_its_time_limit(virtual_time: VirtualTime) -> None:
    app, broker, ended = Octopus("app"), MemoryBroker(), []

    @app.on("t", timeout=2, retry=QUICK)
    async def handle(value: int) -> None:
        try:
            if value == 0:
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append(value)
            raise

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert ended == [0, 0, 0]
    assert b"took longer than 2 s" in dict(dead_letters(broker)[0].headers)["octopus-dead-letter-reason"]


async def test_a_sync_handler_is_given_up_at_its_time_limit() -> None:
    import threading

    app, broker, release = Octopus("app"), MemoryBroker(), threading.Event()

    @app.on("t", timeout=0.05, retry=1)
    def handle(value: int) -> None:
        if value == 0:
            release.wait(5)

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
        release.set()
    assert len(dead_letters(broker)) == 1
    assert committed(broker, "app.handle") == 2


async def test_a_handler_cancelled_by_the_end_of_the_drain_is_delivered_again(virtual_time: VirtualTime) -> None:
    app, broker, runs = Octopus("app"), MemoryBroker(), []

    @app.on("t")
    async def handle(value: int) -> None:
        runs.append(value)
        if len(runs) == 2:
            await asyncio.sleep(3600)

    publish(broker, 0, 1, 2)
    began = virtual_time.time()
    async with working(app, broker, worker={"drain_timeout": 7}):
        await until(lambda: len(runs) == 2)
    assert virtual_time.time() - began == pytest.approx(7, abs=1)
    assert committed(broker, "app.handle") == 1
    assert dead_letters(broker) == []
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert runs == [0, 1, 1, 2]


async def test_what_finishes_within_the_drain_is_committed(virtual_time: VirtualTime) -> None:
    app, broker, runs = Octopus("app"), MemoryBroker(), []

    @app.on("t", ordering="none", concurrency=3)
    async def handle(value: int) -> None:
        await asyncio.sleep(5)
        runs.append(value)

    publish(broker, *range(10))
    async with working(app, broker):
        await asyncio.sleep(1)
    assert sorted(runs) == [0, 1, 2]
    assert committed(broker, "app.handle") == 3


async def test_what_cannot_be_published_is_the_handlers_failure(virtual_time: VirtualTime) -> None:
    app, broker = Octopus("app"), MemoryBroker(max_record_bytes=100)

    @app.on("t", to="out", retry=QUICK)
    async def handle(value: int) -> str:
        return "x" * value

    publish(broker, 10, 1000, 20)
    async with working(app, broker) as worker:
        # The dead letter's own headers need more room.
        broker.max_record_bytes = 600
        await worker.caught_up()
    assert [len(each.value) for each in broker.log(TopicPartition("out", 0)).records] == [10, 20]
    assert dict(dead_letters(broker)[0].headers)["octopus-dead-letter-error"] == b"octopus.errors.RecordTooLarge"


@pytest.mark.parametrize("several", [False, True], ids=["one result", "several"])
async def test_what_cannot_be_published_yet_waits_and_its_handler_runs_once(
    virtual_time: VirtualTime, several: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", to="out", retry=1)
    async def handle(value: int) -> Any:
        seen.append(value)
        if value == 1:
            broker.faults.fail_next("send", ConnectionFailed("the broker is away"), times=20)
        return [value, value] if several else value

    publish(broker, 0, 1, 2)
    async with working(app, broker) as worker:
        await worker.caught_up()
    values = [each.value for each in broker.log(TopicPartition("out", 0)).records if each is not None]
    assert values == ([b"0", b"0", b"1", b"1", b"2", b"2"] if several else [b"0", b"1", b"2"])
    assert seen == [0, 1, 2]
    assert not dead_letters(broker), "an outage is no event's fault"
    assert caplog.text.count("handle: results wait to be published: the broker is away") == 1


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_poison_in_a_batch_is_isolated_and_the_rest_is_done_in_order(virtual_time: VirtualTime) -> None:
    app, broker, batches = Octopus("app"), MemoryBroker(), []

    @app.on("t", batch=4, within=0.5, retry=RetryPolicy(attempts=2, backoff=1, jitter=0))
    async def handle(values: list[int]) -> None:
        batches.append(values)
        if 2 in values:
            raise ValueError("two is bad")

    publish(broker, *range(6))
    broker.append([Outgoing("t", b"{not json")])
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert batches == [[0, 1, 2, 3], [0, 1, 2, 3], [0], [1], [2], [3], [4, 5]]
    assert [dead_letter.value for dead_letter in dead_letters(broker)] == [b"2", b"{not json"]
    assert committed(broker, "app.handle") == 7


async def test_a_filter_that_must_be_asked_again_later_holds_its_record_only(virtual_time: VirtualTime) -> None:
    app, broker, batches = Octopus("app"), MemoryBroker(), []

    class Registry:
        """A codec whose registry is away at first."""

        content_type = "application/x-registered"
        away = 2

        def decoder(self, annotation: Any) -> Any:
            def decode(data: bytes) -> Any:
                if self.away:
                    self.away -= 1
                    raise ConnectionFailed("the registry is away")
                return data.decode()

            return decode

        def encode(self, value: Any) -> bytes:
            return str(value).encode()

    app = Octopus("app", codecs=[Registry()])

    @app.on("t", batch=3, within=0.1, retry=QUICK)
    async def handle(values: list[Any]) -> None:
        batches.append(values)

    publish(broker, 0)
    publish(broker, 1, headers=(("content-type", b"application/x-registered"),))
    publish(broker, 2)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert batches == [[0, 2], ["1"]]
    assert committed(broker, "app.handle") == 3


# ── several handlers in a group ───────────────────────────────────────────────────────────────────────────────────────


async def test_of_several_handlers_only_the_one_that_failed_runs_again(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.on("t", group="shared", retry=QUICK)
    async def good(value: int) -> None:
        seen.append(("good", value))

    @app.on("t", group="shared", retry=QUICK)
    async def bad(value: int) -> None:
        seen.append(("bad", value))
        if value == 0 and seen.count(("bad", 0)) < 3:
            raise OSError("busy")
        if value == 1:
            raise ValueError("never")

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
        status = worker.status().groups[0]
    assert [each for each in seen if each[0] == "good"] == [("good", 0), ("good", 1)]
    assert seen.count(("bad", 0)) == seen.count(("bad", 1)) == 3
    assert (status.handlers, status.settled, status.dead) == (("good", "bad"), 2, 1)
    assert dict(dead_letters(broker)[0].headers)["octopus-dead-letter-handler"] == b"bad"
    assert committed(broker, "shared") == 2
