"""A broker that throttles is waited for, for as long as it says, and nothing times out meanwhile."""

import time
from collections.abc import AsyncIterator

import pytest

from octopus.events import TopicPartition
from octopus.transports.base import Commit, Outgoing
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka.consumer import STOP_TIMEOUT
from octopus.transports.opening import open_transport
from tests.transports.members import Member

PRODUCE, FETCH, OFFSET_COMMIT, HEARTBEAT, LEAVE_GROUP = 0, 1, 8, 12, 13
IMPATIENT = 0.4
"""Seconds that a request may take here; throttled longer, it would fail if it was sent at once."""


@pytest.fixture
async def transport() -> AsyncIterator[EmbeddedTransport]:
    made = open_transport("embedded://", request_timeout=IMPATIENT, commit_timeout=5.0)
    assert isinstance(made, EmbeddedTransport)
    await made.open()
    yield made
    await made.close()


def requests(transport: EmbeddedTransport, name: str) -> int:
    assert transport._whereabouts.thread is not None
    counted = transport._whereabouts.thread.counters()["requests"]
    assert isinstance(counted, dict)
    return counted.get(name, 0)


async def test_publishing_goes_on_when_it_may_again_and_sends_nothing_twice(transport: EmbeddedTransport) -> None:
    producer = transport.producer()
    await producer.start()
    await producer.send(Outgoing("t", b"0"))
    transport.faults.throttle(PRODUCE, 1.0)
    began = time.monotonic()
    offsets = [(await producer.send(Outgoing("t", b"%d" % number))).offset for number in (1, 2)]
    assert offsets == [1, 2]
    assert 1.0 <= time.monotonic() - began < 2.0
    assert requests(transport, "Produce") == 3
    await producer.stop()


async def test_reading_goes_on_when_it_may_again(transport: EmbeddedTransport) -> None:
    producer = transport.producer()
    await producer.start()
    await producer.send_many([Outgoing("t", b"%d" % number) for number in range(10)])
    transport.faults.throttle(FETCH, 1.0)
    member = Member(transport, "g", {"t"})
    began = time.monotonic()
    await member.consumer.start(member)
    await member.until(lambda: member.count == 10)
    assert 1.0 <= time.monotonic() - began < 3.0
    assert member.changes == [("assigned", frozenset({TopicPartition("t", 0)}))]
    await member.consumer.stop()
    await producer.stop()


async def test_heartbeats_that_are_throttled_do_not_cost_the_membership(transport: EmbeddedTransport) -> None:
    producer = transport.producer()
    await producer.start()
    await producer.send(Outgoing("t", b"0"))
    member = Member(transport, "g", {"t"})
    await member.consumer.start(member)
    await member.until(lambda: member.count == 1)
    transport.faults.throttle(HEARTBEAT, 1.0, times=3)
    transport.faults.throttle(OFFSET_COMMIT, 1.0, times=2)
    zero = TopicPartition("t", 0)
    for offset in (0, 1):
        await member.consumer.commit({zero: Commit(offset)})
    await producer.send(Outgoing("t", b"1"))
    await member.until(lambda: member.count == 2)
    assert await member.consumer.committed({zero}) == {zero: Commit(1)}
    assert len(member.changes) == 1
    await member.consumer.stop()
    await producer.stop()


async def test_stopping_does_not_wait_for_the_broker_to_want_us_again(transport: EmbeddedTransport) -> None:
    producer = transport.producer()
    await producer.start()
    await producer.send(Outgoing("t", b"0"))
    member = Member(transport, "g", {"t"})
    await member.consumer.start(member)
    await member.until(lambda: member.count == 1)
    transport.faults.throttle(HEARTBEAT, 60.0)
    transport.faults.throttle(FETCH, 60.0)
    await member.until(lambda: requests(transport, "Heartbeat") == 1)
    began = time.monotonic()
    await member.consumer.stop()
    assert time.monotonic() - began < STOP_TIMEOUT + 1
    await producer.stop()


async def test_a_broker_that_does_not_answer_a_goodbye_is_not_waited_for_long() -> None:
    transport = open_transport("embedded://")  # with the patience that is usual: half a minute
    assert isinstance(transport, EmbeddedTransport)
    await transport.open()
    member = Member(transport, "g", {"t"})
    await member.consumer.start(member)
    await member.until(lambda: member.mine)
    transport.faults.delay(LEAVE_GROUP, 60.0)
    began = time.monotonic()
    await member.consumer.stop()
    assert time.monotonic() - began < STOP_TIMEOUT + 1
    await transport.close()
