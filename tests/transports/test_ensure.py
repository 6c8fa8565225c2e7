"""Topics that are made before the first message goes there."""

import asyncio

import pytest

from octopus.config import TopicSettings
from octopus.errors import NotAuthorized, TopicNotFound
from octopus.transports.base import Outgoing
from octopus.transports.ensure import TopicEnsurer
from octopus.transports.memory import MemoryBroker, MemoryTransport


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
    producer = TopicEnsurer(transport, TopicSettings(partitions=3))
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
    producer = TopicEnsurer(transport, TopicSettings())
    await producer.start()
    await asyncio.gather(*(producer.send(Outgoing(f"t{number}", b"")) for number in range(5)))
    assert transport.opened == 1
    await producer.stop()
    assert transport.opened == 0


async def test_a_missing_topic_is_an_error_where_none_may_be_made() -> None:
    transport = MemoryTransport(MemoryBroker(auto_create=0))
    producer = TopicEnsurer(transport, TopicSettings(create=False))
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
        await TopicEnsurer(transport, TopicSettings()).ensure(["a"])
