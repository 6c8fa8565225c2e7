"""When the next answer of a broker is asked for: ahead where there is much to read, else when somebody wants it."""

from collections.abc import Callable

import pytest

from octopus.events import TopicPartition
from octopus.transports.base import Outgoing, Producer, Transport
from octopus.transports.kafka.consumer import LITTLE
from octopus.transports.kafka.engine import Fetcher

from .conftest import Join


@pytest.fixture
def transport(wire_transport: Transport) -> Transport:
    return wire_transport


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return something that grows when brokers are looked at that can be asked again."""
    times: list[None] = []
    ask: Callable[[Fetcher], None] = Fetcher.ask_for_more

    def noted(self: Fetcher) -> None:
        times.append(None)
        ask(self)

    monkeypatch.setattr(Fetcher, "ask_for_more", noted)
    return times


@pytest.mark.parametrize(
    ("size_bytes", "is_ahead"), [(10, False), (2 * LITTLE, True)], ids=["a little came", "there is much"]
)
async def test_more_is_asked_for_ahead_only_where_there_is_much(
    size_bytes: int, is_ahead: bool, join: Join, producer: Producer, topic: str, asked: list[None]
) -> None:
    member = await join(topic, topic)
    await producer.send(Outgoing(topic, bytes(size_bytes), partition=0))
    await member.until(lambda: member.count == 1)
    before = len(asked)
    assert await member.turn(only=(), timeout=0.0) == [], "nobody wants anything"
    assert len(asked) == before
    await member.turn(timeout=0.0)
    assert len(asked) == before + (not is_ahead)


async def test_what_was_not_asked_for_ahead_comes_with_the_next_fetch(
    join: Join, producer: Producer, topic: str
) -> None:
    member = await join(topic, topic)
    for number in range(20):
        await producer.send(Outgoing(topic, b"%d" % number, partition=0))
        await member.until(lambda so_far=number + 1: member.count == so_far)
    assert member.values(TopicPartition(topic, 0)) == [b"%d" % number for number in range(20)]
