"""Dead-letter and retry topics of a worker: they take what the events' topic takes, and may vanish meanwhile. On both brokers."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, RetryPolicy, config
from octopus.routing import Delivery
from octopus.testing import TestClient
from octopus.transports.base import SIZE_LIMIT, Admin, Outgoing, Transport
from octopus.transports.kafka import missing
from octopus.transports.memory import MemoryBroker
from octopus.transports.opening import open_transport
from octopus.worker import Worker
from tests.worker.reads import Reads

DELIVERIES: list[Delivery] = ["at_least_once", "exactly_once"]
pytestmark = pytest.mark.parametrize("delivery", DELIVERIES)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look soon, and believe it soon: there is one broker."""
    for name, seconds in (("LOOK_AFTER", 0.2), ("LOOK_CLOSELY", 0.1), ("MISSING_FOR", 0.3)):
        monkeypatch.setattr(missing, name, seconds)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    if request.param == "embedded":
        broker = open_transport("embedded://")
        await broker.open()
        made = open_transport(broker.address, metadata_max_age=0.5)
    else:
        broker = made = open_transport(request.getfixturevalue("kafka_cluster"), metadata_max_age=0.5)
    yield made
    await broker.close()


@pytest.fixture
async def admin(transport: Transport) -> AsyncIterator[Admin]:
    made = transport.admin()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def topic() -> str:
    return f"derived-{secrets.token_hex(4)}"


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(90):
        while not await condition():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def working(
    app: Octopus, transport: Transport, *, clock: Callable[[], float] = time.time, **given: Any
) -> AsyncIterator[Worker]:
    quick = {"topics": {"partitions": 1}, "worker": {"commit_interval": 0.05, "transaction_interval": 0.05}}
    settings = config.load(config.merge(quick, given))
    async with Worker(app, settings, transport=transport, clock=clock) as worker:
        yield worker


def refusing(topic: str, delivery: Delivery, **options: Any) -> Octopus:
    """Return an app that gives even numbers on and refuses odd ones, and what is large."""
    app = Octopus(topic)

    @app.on(topic, **{"to": f"{topic}.out", "retry": 1, "delivery": delivery, **options})
    async def handle(value: Any) -> Any:
        if not isinstance(value, int) or value % 2:
            raise ValueError("no")
        return value

    return app


async def send(transport: Transport, *messages: Outgoing) -> None:
    producer = transport.producer()
    await producer.start()
    await producer.send_many(messages)
    await producer.stop()


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_dead_letter_of_an_event_as_large_as_its_topic_allows_is_written(
    transport: Transport, admin: Admin, topic: str, delivery: Delivery
) -> None:
    await admin.create_topic(topic, config={SIZE_LIMIT: "3000000"})
    await send(transport, Outgoing(topic, b'"' + b"x" * 2_999_850 + b'"'), Outgoing(topic, b"2"))
    # also where the producer would refuse to publish as much
    async with working(refusing(topic, delivery), transport, producer={"max_record_bytes": 1000}) as worker:
        await worker.caught_up()
    (dead_letter,) = await Reads(transport, admin)(f"{topic}.dead-letter")
    assert len(dead_letter.value or b"") == 2_999_852
    assert dict(dead_letter.headers)["octopus-dead-letter-error"] == b"ValueError"
    assert [record.value for record in await Reads(transport, admin)(f"{topic}.out")] == [b"2"]


@pytest.mark.parametrize("create", [True, False], ids=["may be raised", "may not be raised"])
async def test_a_dead_letter_topic_that_takes_less_is_raised_or_the_letter_sheds(
    transport: Transport, admin: Admin, topic: str, delivery: Delivery, create: bool
) -> None:
    for name in (topic, f"{topic}.dead-letter"):
        await admin.create_topic(name, config={SIZE_LIMIT: "20000"})
    await admin.create_topic(f"{topic}.out")
    headers = [("own", b"h" * 8_000), ("content-type", b"application/json")]
    await send(transport, Outgoing(topic, b'"' + b"x" * 11_700 + b'"', b"k", headers), Outgoing(topic, b"2"))
    async with working(refusing(topic, delivery), transport, topics={"create": create}) as worker:
        await worker.caught_up()
    (dead_letter,) = await Reads(transport, admin)(f"{topic}.dead-letter")
    assert (dead_letter.key, len(dead_letter.value or b"")) == (b"k", 11_702)
    said = dict(dead_letter.headers)
    assert said["content-type"] == b"application/json"
    assert ("own" in said) is create
    assert said.get("octopus-dead-letter-shed") == (None if create else b"headers")


async def test_a_retry_of_an_event_as_large_as_its_topic_allows_waits_and_comes_back(
    transport: Transport, admin: Admin, topic: str, delivery: Delivery
) -> None:
    await admin.create_topic(topic, config={SIZE_LIMIT: "3000000"})
    await send(transport, Outgoing(topic, b"x" * 2_999_850))
    app, seen = Octopus(topic), []

    @app.on(topic, retry=RetryPolicy(attempts=2, backoff=0.1, defer_beyond=0), retry_topic=True, delivery=delivery)
    async def handle(event: Event[str]) -> None:
        seen.append(len(event.value))
        if len(seen) == 1:
            raise ValueError("not yet")

    async def came_back() -> bool:
        return len(seen) == 2

    async with working(app, transport, producer={"max_record_bytes": 1000}):
        await until(came_back)
    assert seen == [2_999_850] * 2


def test_a_test_client_sheds_as_a_worker_does(delivery: Delivery) -> None:
    app = Octopus("app")

    @app.on("t", retry=1, delivery=delivery)
    async def handle(value: str) -> None:
        raise ValueError("no")

    with TestClient(app, raise_errors=False, broker=MemoryBroker(max_record_bytes=700)) as client:
        client.publish("t", "x" * 400, headers={"own": "h" * 250})
        (dead_letter,) = client.dead_letters()
    assert dead_letter.reason == "failed once, with ValueError: no"
    assert dict(client.published("t.dead-letter")[0].headers)["octopus-dead-letter-shed"] == b"headers"


# ── topics that vanish ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("create", [True, False], ids=["made again", "waited for"])
async def test_output_and_dead_letter_topics_that_vanish_cost_no_event(
    transport: Transport, admin: Admin, topic: str, delivery: Delivery, create: bool
) -> None:
    derived, reads = (f"{topic}.out", f"{topic}.dead-letter"), Reads(transport, admin)
    for name in (topic, *derived):
        await admin.create_topic(name)

    async def arrived(*values: int) -> bool:
        found = [record.value for name in derived for record in await reads(name)]
        assert len(found) == len({*found}), "once"
        return {msgspec.json.decode(value or b"null") for value in found} == {*values}

    async with working(refusing(topic, delivery), transport, topics={"create": create}) as worker:
        await send(transport, *[Outgoing(topic, b"%d" % number) for number in range(2)])
        await until(lambda: arrived(0, 1))
        for name in derived:
            await admin.delete_topic(name)
        await send(transport, *[Outgoing(topic, b"%d" % number) for number in range(2, 12)])
        if not create:
            await asyncio.sleep(1)  # in which nothing must end
            for name in derived:
                await admin.create_topic(name, partitions=2)
        await until(lambda: arrived(*range(2, 12)))
        await worker.caught_up()
        assert not worker.failures


@pytest.mark.parametrize("create", [True, False], ids=["made again", "waited for"])
async def test_retries_that_wait_when_their_topic_is_deleted_are_there_after_a_restart(
    transport: Transport, admin: Admin, topic: str, delivery: Delivery, create: bool
) -> None:
    app, seen, retries = Octopus(topic), list[tuple[int, int]](), f"{topic}.handle.retry"
    policy = RetryPolicy(attempts=2, backoff=600, jitter=0, defer_beyond=0)

    @app.on(topic, name="handle", retry=policy, retry_topic=True, delivery=delivery)
    async def handle(event: Event[int]) -> None:
        seen.append((event.value, event.attempt))
        if event.attempt == 1:
            raise ValueError("not yet")

    for name in (topic, f"{topic}.dead-letter", retries):
        await admin.create_topic(name)
    await send(transport, *[Outgoing(topic, b"%d" % number) for number in range(3)])
    options = {"topics": {"create": create}, "consumer": {"metadata_max_age": 0.5}}

    async def all_wait() -> bool:
        return sum(group.delayed for group in worker.status().groups) == 3

    async def is_stranded() -> bool:
        return sum(group.stranded for group in worker.status().groups) == 3

    async with working(app, transport, **options) as worker:
        await until(all_wait)
        await admin.delete_topic(retries)
        if not create:
            await until(is_stranded)
            await admin.create_topic(retries)
    assert not any(group.stranded for group in worker.status().groups)

    async def came_back() -> bool:
        return len(seen) == 6

    async with working(app, transport, clock=lambda: time.time() + 600, **options):
        await until(came_back)
    assert sorted(seen) == [(number, attempt) for number in range(3) for attempt in (1, 2)]
