"""Nothing overtakes what has failed and may be sent again, in the queue of a topic and in what several of them share."""

import asyncio
from collections.abc import Sequence

import pytest

from octopus.config import TopicSettings
from octopus.errors import ConnectionFailed, NotAuthorized, OctopusError, TopicNotFound
from octopus.events import Published
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.memory.transport import MemoryAdmin
from octopus.transports.queueing import Backlog, Call
from octopus.transports.topic_creation import TopicCreatingProducer
from tests.staged import turns

AWAY = ConnectionFailed("the broker is away")


class OnTheWay:
    """A producer whose calls a test answers."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._progress = asyncio.Event()

    @property
    def values(self) -> list[bytes | None]:
        """The values on their way."""
        return [message.value for call in self.calls for message in call.messages]

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def queue_call(self, call: Call) -> None:
        self.calls.append(call)

    async def answered(self, topic: str) -> None:
        while any(topic in call.topics() for call in self.calls):
            self._progress.clear()
            await self._progress.wait()

    def answer(self, *errors: OctopusError | None) -> None:
        """Answer the first calls: with an error, or where they are stored."""
        for error in errors:
            call = self.calls.pop(0)
            call.error = error
            call.finish([None if error else Published(message.topic, 0, 0) for message in call.messages])
        self._progress.set()


class TroubledTransport(MemoryTransport):
    """Its admin client has an answer to which topics there are when the test lets it."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker(auto_create=1))
        self.asked, self.answer = asyncio.Event(), asyncio.Event()
        self.trouble: list[OctopusError] = []
        self.on_the_way = OnTheWay()

    def producer(self, **_: object) -> OnTheWay:  # type: ignore[override]
        return self.on_the_way

    def admin(self) -> MemoryAdmin:
        admin = super().admin()
        topics = admin.topics

        async def troubled() -> object:
            self.asked.set()
            await self.answer.wait()
            if self.trouble:
                raise self.trouble.pop(0)
            return await topics()

        admin.topics = troubled  # type: ignore[assignment, method-assign]
        return admin


@pytest.fixture
def transport() -> TroubledTransport:
    return TroubledTransport()


@pytest.fixture
def producer(transport: TroubledTransport) -> TopicCreatingProducer:
    return TopicCreatingProducer(transport, TopicSettings(create=True, partitions=1))


async def known(transport: TroubledTransport, producer: TopicCreatingProducer, *topics: str) -> OnTheWay:
    transport.answer.set()
    await producer.ensure(topics)
    transport.answer.clear()
    return transport.on_the_way


def numbered(*numbers: int, topic: str = "t") -> list[Outgoing]:
    return [Outgoing(topic, b"%d" % number) for number in numbers]


def errors(futures: "Sequence[asyncio.Future[list[Published]]]") -> list[BaseException | None]:
    return [future.exception() if future.done() else None for future in futures]


@pytest.mark.parametrize(
    "trouble", [AWAY, NotAuthorized("may not ask")], ids=["the broker is away", "it may not be asked"]
)
async def test_what_came_while_a_topic_could_not_be_asked_for_fails_with_what_came_before(
    transport: TroubledTransport, producer: TopicCreatingProducer, trouble: OctopusError
) -> None:
    transport.trouble = [trouble]
    first = producer.queue(numbered(1))
    await transport.asked.wait()
    later = [producer.queue(numbered(2)), producer.queue(numbered(3, 4))]
    transport.answer.set()
    await turns(50)
    assert [type(error) for error in errors([first, *later])] == [type(trouble)] * 3
    assert transport.on_the_way.calls == []
    again = producer.queue(numbered(1))
    await asyncio.wait([*producer._queues["t"].tasks])
    assert transport.on_the_way.values == [b"1"]
    transport.on_the_way.answer(None)
    assert (await again)[0].topic == "t"


async def test_what_is_queued_before_a_failure_is_heard_of_fails_with_it(
    transport: TroubledTransport, producer: TopicCreatingProducer
) -> None:
    way, heard = await known(transport, producer, "t"), []
    first = producer.queue(numbered(1))
    first.add_done_callback(lambda _: heard.append(producer.queue(numbered(1))))
    way.answer(AWAY)
    assert isinstance(producer.queue(numbered(2)).exception(), ConnectionFailed)
    await asyncio.sleep(0)
    assert isinstance(heard[0].exception(), ConnectionFailed), "others may not have heard of it yet"
    await asyncio.sleep(0)
    again = [producer.queue(numbered(number)) for number in (1, 2)]
    assert way.values == [b"1", b"2"]
    way.answer(None, None)
    await asyncio.gather(*again)


async def test_who_tries_again_at_once_does_so(transport: TroubledTransport, producer: TopicCreatingProducer) -> None:
    way, failures = await known(transport, producer, "t"), 0

    async def insist() -> None:
        nonlocal failures
        while True:
            try:
                await producer.send(numbered(1)[0])
            except ConnectionFailed:
                failures += 1
                continue
            return

    insisting = asyncio.create_task(insist())
    await turns()
    way.answer(AWAY)
    await turns()
    way.answer(None)
    await insisting
    assert failures == 1


async def test_what_is_held_up_behind_a_failure_fails_and_what_is_before_it_does_not(
    transport: TroubledTransport, producer: TopicCreatingProducer
) -> None:
    way = await known(transport, producer, "t")
    futures = [producer.queue(numbered(number)) for number in range(4)]
    way.answer(TopicNotFound("gone"))
    futures.append(producer.queue(numbered(4)))  # held up
    way.answer(AWAY, TopicNotFound("gone"), None)
    await turns()
    assert [type(error) for error in errors(futures[1:])] == [
        ConnectionFailed,
        ConnectionFailed,
        type(None),
        ConnectionFailed,
    ]
    transport.answer.set()
    await asyncio.wait([*producer._queues["t"].tasks])
    assert way.values == [b"0"]
    way.answer(None)
    await futures[0]


async def test_a_message_that_is_refused_for_good_fails_nobody_else(
    transport: TroubledTransport, producer: TopicCreatingProducer
) -> None:
    way = await known(transport, producer, "t")
    refused = producer.queue(numbered(1))
    way.answer(NotAuthorized("not there"))
    stored = producer.queue(numbered(2))
    way.answer(None)
    assert isinstance(refused.exception(), NotAuthorized)
    assert await stored


async def test_a_part_that_has_failed_is_overtaken_by_nothing_until_all_parts_are_answered(
    transport: TroubledTransport, producer: TopicCreatingProducer
) -> None:
    way = await known(transport, producer, "t", "u")
    whole = producer.queue([*numbered(1), *numbered(1, topic="u")])
    way.answer(AWAY)
    for _ in range(5):
        await asyncio.sleep(0)
        assert not whole.done()
        assert isinstance(producer.queue(numbered(2)).exception(), ConnectionFailed)
    other = producer.queue(numbered(2, topic="u"))
    way.answer(None, None)
    await asyncio.wait([whole, other])
    assert whole.exception().published == [None, Published("u", 0, 0)]  # type: ignore[union-attr]
    assert other.exception() is None
    await turns()
    producer.queue(numbered(1))
    assert way.values == [b"1"]


async def test_a_backlog_takes_nothing_behind_a_failure_before_it_is_heard_of() -> None:
    backlog = Backlog()
    first = backlog.add(numbered(1))
    backlog.fail(AWAY)
    assert [type(error) for error in errors([first, backlog.add(numbered(2))])] == [ConnectionFailed] * 2
    assert not backlog
    await turns()
    backlog.add(numbered(1))
    assert backlog
