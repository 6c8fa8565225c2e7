"""Topics that are made before the first message goes there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from octopus.config import TopicSettings
from octopus.errors import ConnectionFailed, NotAuthorized, RecordTooLarge, TopicNotFound, TransportError
from octopus.events import Published
from octopus.testing import VirtualTime
from octopus.transports.base import SIZE_LIMIT, Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.memory.transport import MemoryAdmin
from octopus.transports.topic_creation import HEADROOM, TopicCreatingProducer
from octopus.transports.topic_queue import MENDS


class CountingTransport(MemoryTransport):
    """Counts admin clients that are open, and looks at the list of topics."""

    opened = looks = 0

    def admin(self):  # type: ignore[no-untyped-def]
        admin = super().admin()
        start, stop, topics = admin.start, admin.stop, admin.topics

        async def counted_start() -> None:
            await asyncio.sleep(0.001)
            self.opened += 1
            await start()

        async def counted_stop() -> None:
            self.opened -= 1
            await stop()

        async def counted_topics():  # type: ignore[no-untyped-def]
            self.looks += 1
            return await topics()

        admin.start, admin.stop, admin.topics = counted_start, counted_stop, counted_topics
        return admin


async def test_a_topic_is_made_once_and_looked_for_once() -> None:
    transport = CountingTransport(MemoryBroker(auto_create=0))
    producer = TopicCreatingProducer(transport, TopicSettings(partitions=3))
    await producer.start()
    for _ in range(5):
        await producer.send(Outgoing("a", b"1"))
    await producer.send_many([Outgoing("a", b"2"), Outgoing("b", b"3")])
    assert {name: len(logs) for name, logs in transport.broker.topics.items()} == {"a": 3, "b": 3}
    assert transport.looks == 2
    await producer.stop()
    assert transport.opened == 0


async def test_concurrent_first_messages_share_one_admin_client() -> None:
    transport = CountingTransport(MemoryBroker(auto_create=0))
    producer = TopicCreatingProducer(transport, TopicSettings())
    await producer.start()
    await asyncio.gather(*(producer.send(Outgoing(f"t{number}", b"")) for number in range(5)))
    assert transport.opened == 1
    await producer.stop()
    assert transport.opened == 0


async def test_a_missing_topic_is_an_error_where_none_may_be_made() -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))
    producer = TopicCreatingProducer(transport, TopicSettings(create=False))
    with pytest.raises(TopicNotFound, match="octopus topics create a"):
        await producer.send(Outgoing("a", b"1"))
    transport.broker.create_topic("a")
    await producer.send(Outgoing("a", b"1"))


async def test_a_principal_that_may_not_make_it_is_told_whom_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))

    def refuse(*_: object) -> bool:
        raise NotAuthorized("create is denied")

    monkeypatch.setattr(transport.broker, "create_topic", refuse)
    with pytest.raises(NotAuthorized, match=r"may not be created: create is denied\. Ask the operator"):
        await TopicCreatingProducer(transport, TopicSettings()).ensure(["a"])


# ── copies of events ──────────────────────────────────────────────────────────────────────────────────────────────────


def copy(size: int, topic: str = "t.dead-letter") -> Outgoing:
    return Outgoing(topic, b"x" * size, source="t")


def limits(transport: MemoryTransport) -> dict[str, int]:
    return {name: transport.broker.max_record_bytes_of(name) for name in transport.broker.topics}


@pytest.mark.parametrize("together", [False, True], ids=["one", "many"])
async def test_a_topic_for_copies_takes_what_the_events_topic_takes_and_headers_more(together: bool) -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))
    transport.broker.create_topic("t", 1, {SIZE_LIMIT: "5000000"})
    producer = TopicCreatingProducer(transport, TopicSettings())
    messages = [copy(4_999_000), Outgoing("out", b"1")]
    if together:
        await producer.send_many(messages)
    else:
        for message in messages:
            await producer.send(message)
    assert limits(transport) == {"t": 5_000_000, "t.dead-letter": 5_000_000 + HEADROOM, "out": 1_048_576}


async def test_one_that_is_made_before_takes_what_the_largest_of_its_topics_takes() -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))
    for name, limit in (("a", "2000000"), ("b", "3000000")):
        transport.broker.create_topic(name, 1, {SIZE_LIMIT: limit})
    await TopicCreatingProducer(transport, TopicSettings()).ensure(["retries"], {"retries": ["a", "b", "unknown"]})
    assert limits(transport)["retries"] == 3_000_000 + HEADROOM


@pytest.mark.parametrize(
    ("limit", "size", "raised"),
    [
        pytest.param("5000000", 2_000_000, 5_000_000 + HEADROOM, id="to that of the events topic"),
        # compressed, the event fitted; its copy travels as it is
        pytest.param("1000000", 2_000_000, 2_000_000 + HEADROOM, id="to what is there"),
    ],
)
async def test_the_limit_of_one_that_takes_less_is_raised_and_that_is_said(
    caplog: pytest.LogCaptureFixture, limit: str, size: int, raised: int
) -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))
    transport.broker.create_topic("t", 1, {SIZE_LIMIT: limit})
    transport.broker.create_topic("t.dead-letter", 1, {SIZE_LIMIT: "1000000"})
    await TopicCreatingProducer(transport, TopicSettings()).send(copy(size))
    assert limits(transport)["t.dead-letter"] == raised
    assert f"topic 't.dead-letter' takes {raised} bytes now, 1000000 before: an event did not fit" in caplog.text


@pytest.mark.parametrize("why", ["topics.create is off", "alter is denied"])
async def test_a_limit_that_may_not_be_raised_is_said_with_what_to_do(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    transport = MemoryTransport(MemoryBroker())
    for name in ("t", "t.dead-letter"):
        transport.broker.create_topic(name, 1, {SIZE_LIMIT: "1000"})
    admin = transport.admin()

    async def refuse(*_: object, **__: object) -> None:
        raise NotAuthorized(why)

    admin.alter_topic = refuse  # type: ignore[method-assign]
    monkeypatch.setattr(transport, "admin", lambda: admin)
    with pytest.raises(RecordTooLarge):
        await TopicCreatingProducer(transport, TopicSettings(create=why != "topics.create is off")).send(copy(2000))
    assert f"its limit may not be raised ({why})" in caplog.text
    assert f"--topic t.dead-letter --add-config {SIZE_LIMIT}={2000 + HEADROOM}" in caplog.text


async def test_a_dead_letter_that_sheds_until_it_fits_asks_for_one_limit_once(caplog: pytest.LogCaptureFixture) -> None:
    transport = MemoryTransport(MemoryBroker())
    for name in ("t", "t.dead-letter"):
        transport.broker.create_topic(name, 1, {SIZE_LIMIT: "1000"})
    producer = TopicCreatingProducer(transport, TopicSettings(create=False))
    for size in (4000, 3000, 2000, 4000):
        with pytest.raises(RecordTooLarge):
            await producer.send(copy(size))
    assert caplog.text.count("Raise it to") == 1
    assert f"Raise it to {4000 + HEADROOM}:" in caplog.text


async def test_the_limit_of_a_topic_that_takes_no_copies_is_left_alone() -> None:
    transport = MemoryTransport(MemoryBroker())
    with pytest.raises(RecordTooLarge):
        await TopicCreatingProducer(transport, TopicSettings()).send(Outgoing("out", b"x" * 2_000_000))
    assert limits(transport).get("out", 1_048_576) == 1_048_576


async def test_where_a_topic_may_have_no_limit_of_its_own_it_is_made_without(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))
    transport.broker.create_topic("t", 1, {SIZE_LIMIT: "5000000"})
    create = transport.broker.create_topic

    def by_policy(name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> bool:
        if config:
            raise TransportError("a policy refuses it")
        return create(name, partitions, config)

    monkeypatch.setattr(transport.broker, "create_topic", by_policy)
    await TopicCreatingProducer(transport, TopicSettings()).send(copy(10))
    assert limits(transport)["t.dead-letter"] == 1_048_576


# ── limits, while topics come and go ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def virtual_time() -> AsyncIterator[VirtualTime]:
    loop = asyncio.get_running_loop()
    with VirtualTime(loop.time()).installed(loop) as clock:
        yield clock


class TroubledTransport(MemoryTransport):
    """Does something each time that an admin client asks for a topic's settings."""

    def __init__(self, broker: MemoryBroker, trouble: Callable[[str], None]) -> None:
        super().__init__(broker)
        self._trouble = trouble

    def admin(self) -> MemoryAdmin:
        admin = super().admin()
        topic_config = admin.topic_config

        async def troubled(name: str) -> dict[str, str]:
            self._trouble(name)
            return await topic_config(name)

        admin.topic_config = troubled  # type: ignore[method-assign]
        return admin


def small(broker: MemoryBroker, topic: str = "t.dead-letter") -> None:
    """Make a topic again, with a limit that is too small."""
    broker.topics.pop(topic, None)
    broker.create_topic(topic, 1, {SIZE_LIMIT: "1000"})


@pytest.mark.parametrize("create", [True, False], ids=["made again", "waited for"])
async def test_a_topic_that_vanishes_when_its_limit_is_looked_at_loses_nothing(
    create: bool, virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    broker, looks = MemoryBroker(auto_create=0), list[str]()

    def vanish(topic: str) -> None:
        looks.append(topic)
        if looks == ["t.dead-letter"]:
            broker.delete_topic(topic)
            if not create:
                asyncio.get_running_loop().call_later(10, broker.create_topic, topic, 1, {SIZE_LIMIT: "5000"})

    broker.create_topic("t", 1, {SIZE_LIMIT: "3000"})
    small(broker)
    producer = TopicCreatingProducer(TroubledTransport(broker, vanish), TopicSettings(create=create))
    await producer.send(copy(2000))
    assert "may not be raised" not in caplog.text
    assert "topic 't.dead-letter' has vanished" in caplog.text


async def test_whoever_cannot_ask_for_a_limit_may_try_again(caplog: pytest.LogCaptureFixture) -> None:
    broker = MemoryBroker()

    def fail(topic: str) -> None:
        raise ConnectionFailed("away")

    small(broker)
    producer = TopicCreatingProducer(TroubledTransport(broker, fail), TopicSettings())
    with pytest.raises(ConnectionFailed) as caught:
        await producer.send(copy(2000))
    assert caught.value.retryable
    assert "may not be raised" not in caplog.text


async def test_a_limit_that_was_raised_has_some_seconds_to_spread(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, loop = MemoryBroker(), asyncio.get_running_loop()
    small(broker)
    spread_at = loop.time() + 3
    check = broker._check_record

    def check_late(message: Outgoing) -> None:
        if loop.time() < spread_at:
            raise RecordTooLarge("the leader does not know yet")
        check(message)

    monkeypatch.setattr(broker, "_check_record", check_late)
    await TopicCreatingProducer(MemoryTransport(broker), TopicSettings()).send(copy(2000))
    assert loop.time() < spread_at + 3


async def test_a_topic_that_vanishes_often_leaves_attempts_for_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, refusals = MemoryBroker(), [TopicNotFound("gone") for _ in range(MENDS)]
    small(broker)
    append = broker._append

    def refuse_first(message: Outgoing) -> Published:
        if refusals:
            raise refusals.pop()
        return append(message)

    monkeypatch.setattr(broker, "_append", refuse_first)
    await TopicCreatingProducer(MemoryTransport(broker), TopicSettings()).send(copy(2000))
    assert limits(MemoryTransport(broker))["t.dead-letter"] > 2000
