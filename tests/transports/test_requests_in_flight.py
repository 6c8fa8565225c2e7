"""Several requests on their way to one broker: whatever becomes of some, each partition has its records in order, once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from aiokafka.structs import TopicPartition as KafkaPartition

from octopus.broker.request_faults import RequestFaults
from octopus.errors import NotAuthorized
from octopus.events import TopicPartition
from octopus.transports.base import Outgoing, Producer, Transport
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka import producer_engine
from octopus.transports.kafka.producer import KafkaProducer
from octopus.transports.kafka.producer_engine import NUMBERS
from octopus.transports.opening import open_transport

from .members import Member
from .test_faults import PRODUCE, Publisher

PARTITIONS = 6

LEADER_MOVED, TIMED_OUT, TOO_LARGE, NOT_ALLOWED, OUT_OF_ORDER, NO_SUCH_ID, INVALID_RECORD = 6, 7, 10, 29, 45, 59, 87


@pytest.fixture
def transport(wire_transport: Transport) -> Transport:
    return wire_transport


@pytest.fixture(autouse=True)
def a_request_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_engine, "REQUEST_BYTES", 1)


@pytest.fixture
async def broken() -> AsyncIterator[EmbeddedTransport]:
    """An embedded broker that takes faults on order, with a topic."""
    made = open_transport("embedded://")
    assert isinstance(made, EmbeddedTransport)
    await made.open()
    admin = made.admin()
    await admin.start()
    await admin.create_topic("numbers", partitions=PARTITIONS)
    await admin.stop()
    yield made
    await made.close()


async def stored(transport: Transport, count: int) -> Mapping[int, list[bytes | None]]:
    """Return the values in each partition once there are so many."""
    member = Member(transport, "reader", {"numbers"})
    await member.consumer.start(member)
    await member.until(lambda: member.count >= count)
    await member.consumer.stop()
    return {number: member.values(TopicPartition("numbers", number)) for number in range(PARTITIONS)}


def forgotten_one_after_the_other(faults: RequestFaults) -> None:
    """The broker has forgotten the producer, and takes its time to say so to every request that is on its way."""
    faults.fail(PRODUCE, *[OUT_OF_ORDER] * PARTITIONS, delay=0.05)


def forgotten_and_moved(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, NO_SUCH_ID, LEADER_MOVED, 0, LEADER_MOVED, TIMED_OUT, 0, delay=0.05)


def forgotten_and_too_large(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, OUT_OF_ORDER, TOO_LARGE, 0, TOO_LARGE, 0, TOO_LARGE, delay=0.05)


def leader_moved(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, 0, LEADER_MOVED, 0, LEADER_MOVED, LEADER_MOVED)


def timed_out(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, 0, TIMED_OUT, 0, 0, TIMED_OUT)


def too_large(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, 0, TOO_LARGE, 0, TOO_LARGE)


def refused_for_a_record_without_a_name(faults: RequestFaults) -> None:
    """The broker does not say which record is wrong; when it has half of them, none is."""
    faults.fail(PRODUCE, 0, INVALID_RECORD, 0, INVALID_RECORD)


def lost(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, 0, 0)
    faults.drop(PRODUCE)


def unanswered(faults: RequestFaults) -> None:
    faults.fail(PRODUCE, 0, 0)
    faults.drop(PRODUCE, moment="after")


def late(faults: RequestFaults) -> None:
    faults.delay(PRODUCE, 0.2)


@pytest.mark.parametrize(
    "fault",
    [
        leader_moved,
        timed_out,
        too_large,
        refused_for_a_record_without_a_name,
        lost,
        unanswered,
        late,
        forgotten_one_after_the_other,
        forgotten_and_moved,
        forgotten_and_too_large,
    ],
    ids=lambda fault: fault.__name__,
)
async def test_whatever_becomes_of_one_of_several_requests_every_partition_keeps_its_order(
    broken: EmbeddedTransport, fault: Callable[[RequestFaults], None]
) -> None:
    async with Publisher(broken, max_batch_bytes=300) as producer:
        queued = []
        for number in range(600):
            if number % 150 == 100:
                await asyncio.wait(queued[-1:])
                fault(broken.faults)
            messages = [Outgoing("numbers", b"%d" % number, partition=each) for each in range(PARTITIONS)]
            queued.append(producer.queue(messages))
            if number % 10 == 9:
                await asyncio.sleep(0.002)  # or it would all leave together
        published = await asyncio.gather(*queued)
        assert [[place.offset for place in places] for places in published] == [[n] * PARTITIONS for n in range(600)]
    assert await stored(broken, 600 * PARTITIONS) == {
        each: [b"%d" % number for number in range(600)] for each in range(PARTITIONS)
    }


@pytest.mark.parametrize("code", [OUT_OF_ORDER, NO_SUCH_ID], ids=["out of order", "no such id"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
async def test_what_is_queued_behind_a_refused_sequence_number_waits_for_it(
    broken: EmbeddedTransport, code: int, times: int
) -> None:
    async with Publisher(broken, max_batch_bytes=300) as producer:
        # The broker knows nothing of this producer, and would take the next batch with whatever number it has.
        broken.faults.fail(PRODUCE, *[code] * times, delay=0.05)
        queued = [producer.queue([Outgoing("numbers", b"%d" % number, partition=0)]) for number in range(200)]
        assert [place.offset for (place,) in await asyncio.gather(*queued)] == list(range(200))
    assert (await stored(broken, 200))[0] == [b"%d" % number for number in range(200)]


def skip_most_numbers(producer: Producer, topic: str) -> None:
    """Let a producer have few sequence numbers left for the first partition."""
    assert isinstance(producer, KafkaProducer)
    producer.engine.current._txn_manager._sequence_numbers[KafkaPartition(topic, 0)] = NUMBERS - 15


async def test_after_the_greatest_sequence_number_comes_the_first(transport: Transport, topic: str) -> None:
    async with Publisher(transport) as producer:
        skip_most_numbers(producer, topic)
        for number in range(5):
            places = await producer.send_many([Outgoing(topic, b"1", partition=0)] * 10)
            assert [place.offset for place in places] == list(range(number * 10, number * 10 + 10))


async def test_sequence_numbers_are_taken_back_over_the_first(broken: EmbeddedTransport) -> None:
    async with Publisher(broken) as producer:
        skip_most_numbers(producer, "numbers")
        messages = [Outgoing("numbers", b"1", partition=0)] * 10
        await producer.send_many(messages)
        broken.faults.fail(PRODUCE, NOT_ALLOWED)
        with pytest.raises(NotAuthorized):
            await producer.send_many(messages)
        assert (await producer.send_many(messages))[9].offset == 19
