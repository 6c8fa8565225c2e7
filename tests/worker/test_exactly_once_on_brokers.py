"""Outputs that are visible exactly once, on the embedded broker and on Apache Kafka."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from octopus import Octopus
from octopus.broker.request_faults import Moment
from octopus.errors import NotAuthorized, PartitionLost
from octopus.events import TopicPartition
from octopus.transports.base import Commit, Outgoing, TransactionalProducer
from octopus.transports.embedded import EmbeddedTransport
from octopus.worker import Worker
from tests.transports.engines import COOPERATIVE, KIP_848
from tests.worker.exactly_once import Judge, app_of, settings_of


@pytest.fixture
async def judge(either: str) -> AsyncIterator[Judge]:
    async with Judge(either) as judge:
        yield judge


@asynccontextmanager
async def working(judge: Judge, *, threaded: bool = False) -> AsyncIterator[Worker]:
    async with Worker(app_of(judge.plan), settings_of(judge.plan), threaded=threaded) as worker:
        yield worker


@pytest.mark.parametrize("threaded", [False, True], ids=["one loop", "threaded"])
async def test_retries_and_dead_letters_are_inside_the_transactions(judge: Judge, threaded: bool) -> None:
    await judge.publish(100)
    async with working(judge, threaded=threaded) as worker:
        await judge.publish(100)
        await worker.caught_up()
        assert worker.failures == []
        assert worker.status().groups[0].dead == 20
        await judge.verdict()


async def test_members_that_come_and_go_under_load_repeat_nothing(judge: Judge) -> None:
    judge.plan.takes = 0.02
    await judge.publish(300)
    async with working(judge):
        await judge.progressed(30)
        async with working(judge):
            await judge.progressed(120)
        await judge.publish(50)
        await judge.progressed(200)
    async with working(judge) as last:
        await judge.verdict()
        assert last.failures == []


async def test_members_on_librdkafka_that_come_and_go_under_load_repeat_nothing(
    judge: Judge, request: pytest.FixtureRequest
) -> None:
    on_kafka = "kafka" in request.node.callspec.id
    judge.plan.settings = {"consumer": KIP_848 if on_kafka else COOPERATIVE}
    await test_members_that_come_and_go_under_load_repeat_nothing(judge)


MOMENTS = {
    "produce": 0,
    "a new producer": 22,
    "partitions of a transaction": 24,
    "a group of a transaction": 25,
    "the end of a transaction": 26,
    "offsets of a transaction": 28,
}


@pytest.mark.parametrize("request_lost", [pytest.param("before", marks=pytest.mark.slow), "after"])
@pytest.mark.parametrize("api_key", MOMENTS.values(), ids=MOMENTS)
async def test_answers_that_are_lost_repeat_nothing(
    api_key: int, request_lost: Moment, embedded: EmbeddedTransport
) -> None:
    async with Judge(embedded.address) as judge, working(judge):
        for _ in range(3):
            await judge.publish(40)
            embedded.faults.drop(api_key, 2, request_lost)
            await judge.progressed(judge.published)
        await judge.verdict()


CODES = [
    pytest.param(47, id="fenced"),
    pytest.param(16, id="not the coordinator", marks=pytest.mark.slow),
    pytest.param(14, id="coordinator loading", marks=pytest.mark.slow),
    pytest.param(51, id="concurrent transactions", marks=pytest.mark.slow),
    pytest.param(49, id="unknown producer", marks=pytest.mark.slow),
    pytest.param(48, id="invalid state", marks=pytest.mark.slow),
    pytest.param(29, id="not authorized", marks=pytest.mark.slow),
    pytest.param(-1, id="unexpected", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("api_key", [0, 24, 25, 26, 28], ids=["produce", "partitions", "group", "end", "offsets"])
async def test_errors_of_a_broker_repeat_nothing(api_key: int, code: int, embedded: EmbeddedTransport) -> None:
    async with Judge(embedded.address) as judge, working(judge) as worker:
        await judge.publish(30)
        await judge.progressed(30)
        for _ in range(2):
            await judge.publish(30)
            embedded.faults.fail(api_key, code)
            await judge.progressed(judge.published)
            embedded.faults.clear()
        assert worker.failures == []
        await judge.verdict()


async def test_an_abort_after_an_error_drops_what_was_written_before(embedded: EmbeddedTransport) -> None:
    async with Judge(embedded.address) as judge:
        for topic in ("a", "b"):
            await judge.admin.create_topic(topic)
        producer = embedded.transactional_producer("id")
        await producer.start()
        await producer.begin()
        await producer.send(Outgoing("a", b"aborted"))
        embedded.faults.fail(24, 29)  # AddPartitionsToTxn and Produce: not authorized
        embedded.faults.fail(0, 29)
        with pytest.raises(NotAuthorized):
            await producer.send(Outgoing("b", b"refused"))
        await producer.abort()
        await producer.begin()
        await producer.send(Outgoing("b", b"committed"))
        await producer.commit()
        await producer.stop()
        assert [value for _, value in (await judge.read_committed("b"))[TopicPartition("b", 0)]] == [b"committed"]
        assert (await judge.read_committed("a"))[TopicPartition("a", 0)] == []


async def test_a_producer_that_is_fenced_says_so_at_every_step(judge: Judge) -> None:
    transport, place = judge.transport, TopicPartition(judge.plan.name, 0)
    message = Outgoing(judge.plan.name, b"0", partition=0)

    async def send(producer: TransactionalProducer) -> None:
        await producer.send(message)

    async def send_offsets(producer: TransactionalProducer) -> None:
        await producer.send_offsets("group", {place: Commit(1)})

    async def commit(producer: TransactionalProducer) -> None:
        await producer.commit()

    for number, step in enumerate((send, send_offsets, commit)):
        first, second = (transport.transactional_producer(f"{judge.plan.name}/{number}") for _ in range(2))
        await first.start()
        await first.begin()
        await first.send(message)
        await second.start()
        with pytest.raises(PartitionLost):
            await step(first)
        with pytest.raises(PartitionLost):
            await first.begin()
        for producer in (first, second):
            await producer.stop()
    assert (await judge.read_committed(judge.plan.name))[place] == []


async def test_an_output_that_is_too_large_makes_its_event_a_dead_letter(judge: Judge) -> None:
    app, name = Octopus(judge.plan.name), judge.plan.name
    for topic in ("out", "side", "dead-letter"):
        await judge.admin.create_topic(f"{name}.{topic}", config={"max.message.bytes": "1000"})

    @app.on(name, to=f"{name}.out", delivery="exactly_once", ordering="key")
    async def handle(value: int) -> int:
        await app.publish(f"{name}.side", b"%d" % value if value % 10 != 7 else b"x" * 2000)
        return value

    await judge.publish(100)
    async with Worker(app, settings_of(judge.plan)):
        await judge.verdict()
