"""What `Producer.queue` promises, of every producer there is: it waits for nothing, and order holds over failures."""

import asyncio
import gc
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiokafka.structs import TopicPartition as KafkaPartition

from octopus.config import Settings, TopicSettings
from octopus.errors import (
    ConfigurationError,
    ConnectionFailed,
    NotAuthorized,
    RecordRefused,
    RecordTooLarge,
    TopicNotFound,
    TransportError,
)
from octopus.events import Published, TopicPartition
from octopus.pipeline.outputs import CapturingProducer
from octopus.transports.base import Admin, Outgoing, Producer, Transport
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka import missing
from octopus.transports.kafka import producer as kafka_producer
from octopus.transports.kafka.closed import Closed
from octopus.transports.kafka.producer_engine import Accumulator, Builder
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.opening import open_transport
from octopus.transports.queueing import Call
from octopus.transports.topic_creation import TopicCreatingProducer

from .conftest import Join
from .test_faults import PRODUCE, Publisher

PRODUCERS: dict[str, Callable[[Transport], Producer]] = {
    "plain": lambda transport: transport.producer(),
    "topic creating": lambda transport: TopicCreatingProducer(transport, TopicSettings(create=False)),
    "capturing": lambda transport: CapturingProducer(transport.producer()),
}


@pytest.fixture(params=PRODUCERS)
async def producer(request: pytest.FixtureRequest, transport: Transport) -> AsyncIterator[Producer]:
    """Each kind of producer, on each transport."""
    made = PRODUCERS[request.param](transport)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def producer_on_wire(wire_transport: Transport) -> AsyncIterator[Producer]:
    """A producer that speaks the Kafka protocol."""
    async with Publisher(wire_transport) as made:
        yield made


def numbered(topic: str, first: int, count: int = 1, partition: int | None = 0) -> list[Outgoing]:
    return [Outgoing(topic, b"%d" % number, partition=partition) for number in range(first, first + count)]


async def test_what_is_queued_stands_in_order_behind_everything_before_it(
    join: Join, producer: Producer, topic: str
) -> None:
    queued = [producer.queue(numbered(topic, 10 * n, 10)) for n in range(20)]
    sending = [asyncio.ensure_future(producer.send(numbered(topic, 200)[0]))]
    await asyncio.sleep(0)
    queued.append(producer.queue(numbered(topic, 201, 2)))
    many = asyncio.ensure_future(producer.send_many(numbered(topic, 203, 2)))
    published = [place for part in await asyncio.gather(*queued) for place in part]
    assert [place.offset for place in published] == [*range(200), 201, 202]
    assert await sending[0] == Published(topic, 0, 200)
    assert [place.offset for place in await many] == [203, 204]
    member = await join(topic, topic)
    await member.until(lambda: member.count == 205)
    assert member.values(TopicPartition(topic, 0)) == [b"%d" % number for number in range(205)]


async def test_one_message_is_queued_as_well_as_many_and_none(producer: Producer, topic: str) -> None:
    singles = [producer.queue(numbered(topic, number)) for number in range(300)]
    assert [place.offset for (place,) in await asyncio.gather(*singles)] == list(range(300))
    assert await producer.queue([]) == []


async def test_parts_of_one_call_may_go_anywhere(admin: Admin, producer: Producer, topic: str) -> None:
    other = f"{topic}-other"
    await admin.create_topic(other)
    messages = [*numbered(topic, 0, 2, partition=1), *numbered(other, 0, 1), *numbered(topic, 2, 1, partition=2)]
    published = await producer.queue([*messages, *numbered(topic, 3, 1, partition=1)])
    assert published == [
        Published(topic, 1, 0),
        Published(topic, 1, 1),
        Published(other, 0, 0),
        Published(topic, 2, 0),
        Published(topic, 1, 2),
    ]


async def test_an_error_says_what_was_stored_and_fails_nobody_else(producer: Producer, topic: str) -> None:
    before = producer.queue(numbered(topic, 0))
    failing = producer.queue(
        [*numbered(topic, 1), Outgoing(topic, bytes(2_000_000), partition=0), *numbered(topic, 2, 1, partition=7)]
    )
    behind = producer.queue(numbered(topic, 3, 1, partition=1))
    with pytest.raises((RecordTooLarge, TopicNotFound)) as caught:
        await failing
    assert caught.value.published is not None
    first, large, nowhere = caught.value.published
    assert (first, large, nowhere) == (Published(topic, 0, 1), None, None)
    assert await before == [Published(topic, 0, 0)]
    assert await behind == [Published(topic, 1, 0)]


KEYLESS = {7, 8, 30, 49}
"""Which of fifty messages have no key."""


@pytest.fixture
async def compacted(admin: Admin, fresh: str) -> str:
    """A topic that takes no record without a key."""
    await admin.create_topic(fresh, config={"cleanup.policy": "compact"})
    return fresh


@pytest.mark.parametrize("size", [1, 5, 50], ids=["one by one", "by fives", "in one call"])
async def test_what_a_topic_refuses_fails_alone_and_nothing_overtakes_the_rest(
    producer: Producer, compacted: str, join: Join, size: int
) -> None:
    messages = [Outgoing(compacted, b"%d" % n, None if n in KEYLESS else b"%d" % n) for n in range(50)]
    calls = [producer.queue(messages[at : at + size]) for at in range(0, 50, size)]
    later = []
    for number in range(50, 100):
        await asyncio.sleep(0)
        later.append(producer.queue([Outgoing(compacted, b"%d" % number, b"k")]))
    await asyncio.wait([*calls, *later])
    places: list[Published | None] = []
    for call in calls:
        error = call.exception()
        assert error is None or isinstance(error, RecordRefused)
        assert error is None or "key" in str(error)
        places += call.result() if error is None else error.published or []
    assert {number for number, place in enumerate(places) if place is None} == KEYLESS
    places += [place for call in later for place in call.result()]
    assert [place.offset for place in places if place is not None] == list(range(96))
    member = await join(compacted, compacted)
    await member.until(lambda: member.count == 96)
    assert member.values() == [b"%d" % number for number in range(100) if number not in KEYLESS]


async def test_a_time_that_a_topic_does_not_take_is_refused_alone(
    wire_transport: Transport, producer_on_wire: Producer, fresh: str
) -> None:
    admin = wire_transport.admin()
    await admin.start()
    await admin.create_topic(fresh)
    await admin.stop()
    early, late = (Outgoing(fresh, b"x", timestamp=time) for time in (None, 4_000_000_000_000))
    with pytest.raises(RecordRefused, match="4000000000000") as caught:
        await producer_on_wire.queue([early, late, early])
    assert [place and place.offset for place in caught.value.published or ()] == [0, None, 1]


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_a_full_batch_that_is_longer_without_what_was_refused_loses_nothing(
    wire_transport: Transport, fresh: str, compression: str | None
) -> None:
    admin = wire_transport.admin()
    await admin.start()
    await admin.create_topic(fresh, config={"cleanup.policy": "compact"})
    await admin.stop()
    now, long_ago = 1_700_000_000_000, 0  # a time is written as what it is after the first one's of its batch
    messages = [Outgoing(fresh, b"0", None, timestamp=now), Outgoing(fresh, b"1", b"k", timestamp=long_ago)]
    messages += [Outgoing(fresh, b"%d" % number, b"k", timestamp=now) for number in range(2, 500)]
    async with Publisher(wire_transport, max_batch_bytes=2000, compression=compression) as producer:
        with pytest.raises(RecordRefused) as caught:
            await producer.queue(messages)
        assert [place and place.offset for place in caught.value.published or ()] == [None, *range(499)]
        assert await producer.queue(messages[-1:]) == [Published(fresh, 0, 499)]


async def test_a_message_that_is_too_large_is_refused_with_its_size(producer: Producer, topic: str) -> None:
    with pytest.raises(RecordTooLarge, match="2000004 bytes"):
        await producer.queue([Outgoing(topic, bytes(2_000_000), b"four")])


async def test_an_error_that_nobody_asks_for_is_no_complaint(
    producer: Producer, topic: str, fresh: str, caplog: pytest.LogCaptureFixture
) -> None:
    for messages in (numbered(f"{fresh}-unknown", 0), [*numbered(topic, 0), *numbered(f"{fresh}-unknown", 0)]):
        future = producer.queue(messages)
        await asyncio.wait([future])
        del future
        gc.collect()
    assert "never retrieved" not in caplog.text


async def test_cancelling_takes_nothing_back(producer: Producer, topic: str) -> None:
    for number in range(3):
        producer.queue(numbered(topic, number)).cancel()
    given_up = asyncio.ensure_future(producer.send(numbered(topic, 3)[0]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await producer.queue(numbered(topic, 4)) == [Published(topic, 0, 4)]


async def test_what_is_queued_is_counted_until_it_is_acknowledged(producer: Producer, topic: str) -> None:
    future = producer.queue([Outgoing(topic, bytes(1000), b"key", partition=0), Outgoing(topic, None, b"tomb")])
    assert producer.queued_bytes == (0 if future.done() else 1007)
    await future
    assert producer.queued_bytes == 0
    failing = producer.queue(numbered(topic, 0, 2, partition=9))
    with pytest.raises(TopicNotFound):
        await failing
    assert producer.queued_bytes == 0


@pytest.mark.parametrize("kind", PRODUCERS)
async def test_stopping_delivers_what_is_queued(transport: Transport, topic: str, kind: str) -> None:
    producer = PRODUCERS[kind](transport)
    await producer.start()
    queued = [producer.queue(numbered(topic, number)) for number in range(50)]
    await producer.stop()
    assert [place.offset for (place,) in await asyncio.gather(*queued)] == list(range(50))


async def test_what_is_queued_in_a_transaction_shares_its_fate(
    transport: Transport, topic: str, fresh: str, join: Join
) -> None:
    producer = transport.transactional_producer(fresh)
    await producer.start()
    await producer.begin()
    dropped = producer.queue(numbered(topic, 0, 3))
    await producer.abort()
    assert dropped.done()
    await producer.begin()
    kept = producer.queue(numbered(topic, 3, 3))
    await producer.commit()
    assert kept.done()
    await producer.stop()
    member = await join(fresh, topic)
    await member.until(lambda: member.count == 3)
    assert member.values() == [b"3", b"4", b"5"]


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe soon that a topic is gone: there is one broker."""
    for name, seconds in (("LOOK_AFTER", 0.2), ("LOOK_CLOSELY", 0.1), ("MISSING_FOR", 0.3)):
        monkeypatch.setattr(missing, name, seconds)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("size", [1, 7], ids=["one by one", "several at once"])
async def test_nothing_overtakes_what_waits_for_its_topic(
    transport: Transport, admin: Admin, fresh: str, join: Join, size: int
) -> None:
    other = f"{fresh}-other"
    await admin.create_topic(other)
    producer = TopicCreatingProducer(transport, TopicSettings(create=True, partitions=1), delivery_timeout=30.0)
    await producer.start()
    await producer.queue(numbered(fresh, 0))
    deleted_at, queued = 0, []
    for number in range(1, 2000, size):
        if number > 400 and not deleted_at:
            await admin.delete_topic(fresh)
            deleted_at = number
        queued.append(producer.queue([*numbered(fresh, number, size), *numbered(other, number, size)]))
        if number % 3 == 1:
            await asyncio.sleep(0.001)
    published = await asyncio.gather(*queued)
    last = published[-1][size - 1].offset
    member = await join(fresh, {fresh})
    await member.until(lambda: member.count == last + 1)
    stored = [int(value or b"") for value in member.values()]
    assert stored == sorted(set(stored)), "in order, each once"
    assert stored[-1] == 1 + (1999 - 1) // size * size + size - 1
    assert deleted_at
    assert set(range(deleted_at + size, stored[-1])) <= set(stored), (
        "everything that was queued after its topic was gone"
    )
    assert [place.offset for part in published for place in part[size:]] == list(range(len(published) * size))
    await producer.stop()


@pytest.fixture
async def broken() -> AsyncIterator[EmbeddedTransport]:
    """An embedded broker that takes faults on order."""
    made = open_transport("embedded://", metadata_timeout=1.0, commit_timeout=2.0)
    assert isinstance(made, EmbeddedTransport)
    await made.open()
    admin = made.admin()
    await admin.start()
    await admin.create_topic("numbers", partitions=2)
    await admin.stop()
    yield made
    await made.close()


async def values(transport: Transport, count: int) -> list[bytes | None]:
    from .members import Member

    member = Member(transport, "reader", {"numbers"})
    await member.consumer.start(member)
    await member.until(lambda: member.count >= count)
    await member.consumer.stop()
    return member.values(TopicPartition("numbers", 0))


async def refused(broken: EmbeddedTransport, producer: Producer) -> None:
    """The broker does not expect a sequence number."""
    broken.faults.fail(PRODUCE, 0, 45)


async def forgotten(broken: EmbeddedTransport, producer: Producer) -> None:
    """The broker has forgotten the producer, twice."""
    broken.faults.fail(PRODUCE, 59, 59)


async def unanswered(broken: EmbeddedTransport, producer: Producer) -> None:
    """The answer to a request is lost."""
    broken.faults.drop(PRODUCE, moment="after")


@pytest.mark.parametrize("fault", [refused, forgotten, unanswered], ids=lambda fault: fault.__name__)
async def test_nothing_overtakes_what_is_sent_again_under_a_new_id(
    broken: EmbeddedTransport, fault: Callable[[EmbeddedTransport, Producer], Awaitable[None]]
) -> None:
    async with Publisher(broken, max_batch_bytes=1000) as producer:
        await producer.queue(numbered("numbers", 0))
        queued = []
        for number in range(1, 500):
            if number == 100:
                await fault(broken, producer)
            queued.append(producer.queue([*numbered("numbers", number), *numbered("numbers", number, partition=1)]))
            if number % 7 == 0:
                await asyncio.sleep(0)
        published = await asyncio.gather(*queued)
        assert [part[0].offset for part in published] == list(range(1, 500))
        assert await values(broken, 999) == [b"%d" % number for number in range(500)]


async def test_who_sends_again_what_has_failed_is_not_overtaken_by_what_was_queued_behind_it(
    broken: EmbeddedTransport,
) -> None:
    async with Publisher(broken, delivery_timeout=0.4, max_batch_bytes=300) as producer:
        await producer.queue(numbered("numbers", 0))
        broken.faults.delay(PRODUCE, 0.6)
        waiting = {number: producer.queue(numbered("numbers", number)) for number in range(1, 30)}
        await asyncio.wait([waiting[1]], timeout=0.3)
        waiting |= {number: producer.queue(numbered("numbers", number)) for number in range(30, 40)}
        await asyncio.wait([waiting[1]])
        broken.faults.clear()
        await asyncio.wait(waiting.values())
        failed = [number for number, future in waiting.items() if future.exception() is not None]
        assert failed == list(range(failed[0], 40)), "none that was queued behind one that failed was stored"
        while failed:
            again = {number: producer.queue(numbered("numbers", number)) for number in failed}
            await asyncio.wait(again.values())
            failed = [number for number, future in again.items() if isinstance(future.exception(), ConnectionFailed)]
        assert (await producer.queue(numbered("numbers", 40)))[0].partition == 0
        stored = await values(broken, 41)
    assert list(dict.fromkeys(stored)) == [b"%d" % number for number in range(41)]


async def test_a_place_closes_behind_a_failure_only_for_calls_that_have_not_had_word_of_it() -> None:
    closed, error = Closed(), ConnectionFailed("away")
    call, elsewhere = (Call(numbered(topic, 0), asyncio.get_running_loop().create_future()) for topic in ("t", "u"))
    closed.close(("t", 0), error, [elsewhere])
    assert closed.error_of(("t", 0)) is None, "nobody's word would open it again"
    closed.close(("t", 0), error, [call, elsewhere])
    assert closed.error_of(("t", 0)) is error
    closed.note_finished(call)
    await asyncio.sleep(0)
    assert closed.error_of(("t", 0)) is None
    another = Call(numbered("t", 1), asyncio.get_running_loop().create_future())
    closed.close(("t", 0), error, [call, another])
    closed.note_finished(call)
    await asyncio.sleep(0)
    assert closed.error_of(("t", 0)) is error, "one of them has not heard of it"
    closed.note_finished(another)
    await asyncio.sleep(0)
    assert closed.error_of(("t", 0)) is None


async def test_what_cannot_be_queued_says_so_by_its_future(broken: EmbeddedTransport) -> None:
    producer = broken.producer()
    future = producer.queue(numbered("numbers", 0, 2))
    with pytest.raises(TransportError, match="not running") as caught:
        await future
    assert caught.value.published == [None, None]


async def test_what_is_no_topic_name_says_so_by_its_future() -> None:
    producer = TopicCreatingProducer(MemoryTransport(MemoryBroker(auto_create=0)), Settings().topics)
    await producer.start()
    with pytest.raises(ConfigurationError, match="is not a topic name"):
        await producer.queue(numbered("no topic!", 0))
    await producer.stop()


async def test_others_have_their_turn_while_a_round_of_many_calls_is_packed(
    broken: EmbeddedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_producer, "TURN", 0.0)
    async with Publisher(broken) as producer:
        assert isinstance(producer, kafka_producer.KafkaProducer)
        await producer.send(Outgoing("numbers", b"0"))
        queued = [producer.queue(numbered("numbers", number)) for number in range(100)]
        while producer._calls:
            await asyncio.sleep(0)
        turns = 0
        while not producer._in_flight_bytes:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 100
        published = await asyncio.gather(*queued)
    assert [place.offset for (place,) in published] == [*range(published[0][0].offset, published[0][0].offset + 100)]


UNFIT: dict[str, Outgoing] = {
    "a header that is a number": Outgoing("numbers", b"x", headers=[("h", 5)], partition=0),  # type: ignore[list-item]
    "a header whose name is no text": Outgoing("numbers", b"x", headers=[("\ud800", b"h")], partition=0),
    "a key that is text": Outgoing("numbers", b"x", "key"),  # type: ignore[arg-type]
    "a time that is text": Outgoing("numbers", b"x", timestamp="now", partition=0),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wrong", UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("others", [0, 1, 200], ids=["alone", "with one other", "with many"])
async def test_a_message_that_no_batch_can_take_fails_alone(
    broken: EmbeddedTransport, wrong: Outgoing, others: int
) -> None:
    async with Publisher(broken, max_batch_bytes=300) as producer:
        before, behind = ([*numbered("numbers", first, others)] for first in (0, others))
        queued = [producer.queue(messages) for messages in (before, [wrong], [*before[:1], wrong, *behind[:1]], behind)]
        await asyncio.wait(queued)
        assert isinstance(queued[1].exception(), TypeError | UnicodeError | struct.error)
        assert type(queued[2].exception()) is type(queued[1].exception())
        offsets = [place.offset for future in (queued[0], queued[3]) for place in future.result()]
        assert offsets == [n if n < others else n + 2 * bool(others) for n in range(2 * others)]
        assert (await producer.queue(numbered("numbers", 2)))[0].offset == len(offsets) + 2 * bool(others)


async def test_nothing_newer_is_stored_before_what_was_given_up_is_known_to_have_failed(
    broken: EmbeddedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up, append = asyncio.Event(), Accumulator.append

    def append_to_the_first(accumulator: Accumulator, builder: Builder, place: KafkaPartition) -> object:
        if place.partition == 1 and not given_up.is_set():
            given_up.set()
            raise MemoryError("no room for the second batch")
        return append(accumulator, builder, place)

    async with Publisher(broken) as producer:
        await producer.queue(numbered("numbers", 0))
        broken.faults.delay(PRODUCE, 0.3)
        monkeypatch.setattr(Accumulator, "append", append_to_the_first)
        torn = producer.queue([*numbered("numbers", 1), *numbered("numbers", 2, partition=1)])
        await given_up.wait()
        newer = producer.queue(numbered("numbers", 3, partition=1))
        await asyncio.wait([newer])
        assert not torn.done(), "who queued it does not know yet that half of it has to be sent again"
        assert isinstance(newer.exception(), MemoryError)
        with pytest.raises(MemoryError):
            await torn
        places = [await producer.queue(numbered("numbers", number, partition=1)) for number in (2, 3)]
        assert [place.offset for (place,) in places] == [0, 1]


async def test_what_is_kept_for_another_producer_id_fails_when_there_is_none(broken: EmbeddedTransport) -> None:
    init_producer_id, out_of_order, not_allowed = 22, 45, 31
    async with Publisher(broken) as producer:
        await producer.queue(numbered("numbers", 0))
        broken.faults.fail(PRODUCE, out_of_order)
        broken.faults.fail(init_producer_id, not_allowed)
        given_up = [producer.queue(numbered("numbers", number)) for number in range(1, 4)]
        await asyncio.wait(given_up)
        assert all(isinstance(future.exception(), NotAuthorized) for future in given_up)
        again = await asyncio.gather(*[producer.queue(numbered("numbers", number)) for number in range(1, 4)])
        assert [place.offset for (place,) in again] == [1, 2, 3]
