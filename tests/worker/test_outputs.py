"""What a worker promises about what handlers return while it is on its way, and in every end that may come before it is there."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from octopus import Event, Message, Octopus, RetryPolicy, config
from octopus.errors import ConnectionFailed, RecordTooLarge
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.queueing import Call, CallProducer
from octopus.worker import Worker
from octopus.worker.intake import FINISHED
from tests.staged import P0, P1, committed, dead_letters, publish, until

GROUP = "app.double"


class FarProducer:
    """Stores at once and answers late: a link with a long round trip, and outages.

    Args:
        producer: Stores.
        link: How long that takes.
    """

    def __init__(self, producer: CallProducer, link: "Link") -> None:
        self._producer = producer
        self._link = link
        self._sent: deque[tuple[Call, bool]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def queue_call(self, call: Call) -> None:
        link = self._link
        link.failing += bool(link.is_down or link.failing)  # nothing overtakes what fails
        self._sent.append((call, bool(link.failing)))
        asyncio.get_running_loop().call_later(link.delay, self._answer)

    def _answer(self) -> None:
        call, fails = self._sent.popleft()
        self._link.failing -= fails
        if fails:
            call.error = ConnectionFailed("the broker is away")
            call.finish([None] * len(call.messages))
        else:
            self._producer.queue_call(call)


class Link(MemoryTransport):
    """A broker at the other end of a link."""

    def __init__(self, broker: MemoryBroker, delay: float) -> None:
        super().__init__(broker)
        self.delay = delay
        self.is_down = False
        self.failing = 0  # publications on their way that will

    def producer(self, **options: Any) -> Any:
        return FarProducer(super().producer(**options), self)


def doubling(seen: list[int], **options: Any) -> Octopus:
    app = Octopus("app")

    @app.on("t", to="out", **options)
    async def double(value: int) -> int:
        seen.append(value)
        return 2 * value

    return app


@asynccontextmanager
async def far(app: Octopus, link: Link, **worker: Any) -> AsyncIterator[Worker]:
    given = {"topics": {"partitions": 1}, "worker": {"commit_interval": 0.05} | worker}
    settings = config.load(config.merge(app.settings, given))
    async with Worker(app, settings, transport=link, threaded=False) as running:
        yield running


def outputs(broker: MemoryBroker, topic: str = "out") -> list[Any]:
    return [
        msgspec.json.decode(each.value)
        for log in broker.topics.get(topic, [])
        for each in log.records
        if each is not None and each.value is not None
    ]


async def test_a_long_round_trip_does_not_limit_what_is_handled(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, *range(5000))
    link = Link(broker, 0.06)
    began = virtual_time.time()
    async with far(doubling(seen), link) as worker:
        await worker.caught_up()
        assert virtual_time.time() - began < 5  # one by one it would be 300 s
    assert outputs(broker) == [2 * value for value in range(5000)]
    assert committed(broker, GROUP) == 5000


async def test_finished_events_hold_up_others_only_when_there_are_five_times_as_many(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, *range(20_000))
    async with far(doubling(seen), Link(broker, 10.0), in_flight_records=1_000) as worker:
        await asyncio.sleep(5)
        assert (
            FINISHED * 500 <= len(seen) <= FINISHED * 1_000
        )  # a partition may have half of it, and what was fetched with that
        assert worker.status().groups[0].in_flight == len(seen)
        await worker.caught_up()
    assert outputs(broker) == [2 * value for value in range(20_000)]


async def test_by_default_so_much_is_on_its_way_that_a_round_trip_hardly_matters(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, *range(60_000))
    began = virtual_time.time()
    async with far(doubling(seen), Link(broker, 0.06)) as worker:
        await worker.caught_up()
        assert virtual_time.time() - began < 0.5  # 120,000 a second, where handlers take no time
    assert outputs(broker) == [2 * value for value in range(60_000)]


async def test_a_full_group_reads_on_as_soon_as_acknowledgements_make_room(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, *range(2000))
    began = virtual_time.time()
    async with far(doubling(seen), Link(broker, 0.01), in_flight_records=100 // FINISHED) as worker:
        await worker.caught_up()
        assert (
            virtual_time.time() - began < 1.5
        )  # twenty times full, each time a round trip; asleep it would be 2 s and more
    assert outputs(broker) == [2 * value for value in range(2000)]


@pytest.mark.parametrize("options", [{}, {"ordering": "key"}, {"batch": 7}, {"timeout": 9}], ids=str)
async def test_commits_never_pass_an_output_that_is_not_acknowledged(
    virtual_time: VirtualTime, options: dict[str, Any]
) -> None:
    broker, seen, app = MemoryBroker(), [], Octopus("app")
    link = Link(broker, 0.5)

    @app.on("t", to="out", **options)
    async def double(value: Any) -> Any:
        seen.append(value)
        await asyncio.sleep(random.Random(str(value)).random() / 20)
        return value

    publish(broker, *range(200))
    async with far(app, link) as worker:
        while committed(broker, GROUP) != 200:
            await asyncio.sleep(0.02)
            there = outputs(broker)
            flat = [each for one in there for each in (one if isinstance(one, list) else [one])]
            assert {*range(committed(broker, GROUP) or 0)} <= {*flat}
        await worker.caught_up()


async def test_a_stop_waits_for_acknowledgements_and_commits_them(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, *range(10))
    async with far(doubling(seen), Link(broker, 3.0)):
        await until(lambda: len(seen) == 10)
        assert committed(broker, GROUP) == 0
    assert committed(broker, GROUP) == 10
    assert outputs(broker) == [2 * value for value in range(10)]


async def test_what_is_not_acknowledged_when_a_stop_has_no_time_left_comes_again(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, 1, 2)
    link = Link(broker, 1.0)
    async with far(doubling(seen), link, drain_timeout=5) as worker:
        await worker.caught_up()
        link.is_down = True
        publish(broker, 3, 4)
        await until(lambda: len(seen) == 4)
    assert committed(broker, GROUP) == 2
    assert "outputs of handlers were not acknowledged within 5 s" in caplog.text
    link.is_down = False
    async with far(doubling(seen), link) as worker:
        await worker.caught_up()
    assert seen == [1, 2, 3, 4, 3, 4]
    assert outputs(broker) == [2, 4, 6, 8]


async def test_an_outage_holds_commits_back_and_loses_and_reorders_nothing(virtual_time: VirtualTime) -> None:
    broker, seen, chance = MemoryBroker(), [], random.Random(3)
    link = Link(broker, 0.01)
    async with far(doubling(seen), link) as worker:
        for value in range(300):
            publish(broker, value)
            link.is_down = chance.random() < 0.3
            await asyncio.sleep(chance.random() / 5)
        link.is_down = False
        await worker.caught_up()
    assert outputs(broker) == [2 * value for value in range(300)]
    assert seen == [*range(300)]


async def test_a_revoked_partition_waits_for_acknowledgements_within_its_budget(virtual_time: VirtualTime) -> None:
    broker, first, second = MemoryBroker(), [], []
    broker.create_topic("t", 2)
    for value in range(20):
        publish(broker, value, partition=value % 2)
    link = Link(broker, 2.0)
    async with far(doubling(first), link, revoke_budget=5) as one:
        await until(lambda: len(first) == 20)
        async with far(doubling(second), link) as other:
            await one.caught_up()
            await other.caught_up()
    assert not second
    assert sorted(outputs(broker)) == [2 * value for value in range(20)]
    assert committed(broker, GROUP, P0) == committed(broker, GROUP, P1) == 10


async def test_what_is_not_acknowledged_when_a_partition_goes_runs_again_at_its_new_owner(
    virtual_time: VirtualTime,
) -> None:
    broker, first, second = MemoryBroker(), [], []
    broker.create_topic("t", 2)
    for value in range(20):
        publish(broker, value, partition=value % 2)
    slow, quick = Link(broker, 30.0), Link(broker, 0.01)
    async with far(doubling(first), slow, revoke_budget=1) as one:
        await until(lambda: len(first) == 20)
        async with far(doubling(second), quick) as other:
            await until(lambda: len(second) == 10, 60)
            assert (committed(broker, GROUP, P0), committed(broker, GROUP, P1)).count(0) >= 1
            await other.caught_up()
            await one.caught_up()
    assert {*outputs(broker)} == {2 * value for value in range(20)}


async def test_an_output_that_is_too_large_is_its_records_dead_letter_and_the_others_go_on(
    virtual_time: VirtualTime,
) -> None:
    broker, seen, app = MemoryBroker(max_record_bytes=1000), [], Octopus("app")

    @app.on("t", to="out", retry=RetryPolicy(attempts=2, backoff=1, jitter=0))
    async def grow(event: Event[int]) -> str:
        seen.append((event.value, event.attempt))
        return "x" * (2000 if event.value == 2 else event.value)

    publish(broker, *range(5))
    async with far(app, Link(broker, 0.1)) as worker:
        await worker.caught_up()
    assert seen == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (2, 2)]
    assert [each.value for each in dead_letters(broker)] == [b"2"]
    assert committed(broker, "app.grow") == 5


async def test_a_refused_output_goes_on_in_the_retry_topic_where_its_wait_is_long(virtual_time: VirtualTime) -> None:
    broker, seen, app = MemoryBroker(), [], Octopus("app")
    link = Link(broker, 0.1)

    @app.on("t", to="out", retry_topic=True, retry=RetryPolicy(attempts=3, backoff=100, jitter=0))
    async def double(event: Event[int]) -> int:
        seen.append((event.value, event.attempt))
        if event.attempt == 1:
            broker.faults.fail_next("send", RecordTooLarge("too large"))
        return 2 * event.value

    def clock() -> float:
        return virtual_time.time()

    publish(broker, 4)
    settings = config.load({"topics": {"partitions": 1}})
    async with Worker(app, settings, transport=link, threaded=False, clock=clock):
        await until(lambda: outputs(broker) == [8], 300)
        await until(lambda: committed(broker, "app.double.retry", TopicPartition("app.double.retry", 0)) == 1)
    assert seen == [(4, 1), (4, 2)]
    assert committed(broker, GROUP) == 1


async def test_a_lost_partition_settles_nothing_more(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), []
    publish(broker, *range(3))
    link = Link(broker, 5.0)
    async with far(doubling(seen), link) as worker:
        await until(lambda: len(seen) == 3)
        broker.expel(GROUP)
        await until(lambda: len(seen) == 6, 60)
        assert committed(broker, GROUP) == 0
        await worker.caught_up()
    assert committed(broker, GROUP) == 3


@pytest.mark.parametrize("several", [False, True], ids=["publish", "publish_many"])
async def test_what_a_handler_awaits_overtakes_no_outputs_of_earlier_records(several: bool) -> None:
    broker, app = MemoryBroker(), Octopus("app")

    @app.on("t", to="out")
    async def handle(value: int) -> int | None:
        if value % 3:
            return value
        if several:
            await app.publish_many("out", [value])
        else:
            await app.publish("out", value)
        return None

    publish(broker, *range(100))
    async with far(app, Link(broker, 0)) as worker:
        await worker.caught_up()
    assert outputs(broker) == [*range(100)]


async def test_outputs_beside_one_whose_topic_has_no_name_are_stored_once_and_in_order() -> None:
    broker, app = MemoryBroker(), Octopus("app")

    @app.on("t", to="out", retry=RetryPolicy(attempts=1))
    async def handle(value: int) -> Any:
        return Message(value, topic="no name") if value % 10 == 5 else value

    publish(broker, *range(100))
    async with far(app, Link(broker, 0)) as worker:
        await worker.caught_up()
    assert outputs(broker) == [value for value in range(100) if value % 10 != 5]
    assert len(dead_letters(broker)) == 10
