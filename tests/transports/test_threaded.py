"""A consumer in a thread of its own: nothing lost, nobody left waiting."""

import asyncio
import threading
from collections.abc import Collection
from typing import Any

import pytest

from octopus.errors import ConnectionFailed, NotAuthorized
from octopus.events import TopicPartition
from octopus.transports.base import Chunk, Commit, Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.threaded import ThreadedConsumer, new_loop

P0 = TopicPartition("t", 0)


class Listener:
    """Starts at the beginning and remembers where it was told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.consumer: ThreadedConsumer | None = None
        self.ready = asyncio.Event()
        self.fetching = threading.Event()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        assert self.consumer is not None
        self.note("assigned")
        assert await self.consumer.committed(partitions) == dict.fromkeys(partitions)
        await self.consumer.seek(await self.consumer.offsets(partitions, "earliest"))
        self.ready.set()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.note("revoked")

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        self.note("lost")

    def note(self, what: str) -> None:
        self.log.append(what)
        self.threads.add(threading.current_thread())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "octopus consumer"]


async def started(broker: MemoryBroker) -> tuple[ThreadedConsumer, Listener]:
    listener = Listener()

    def make() -> Any:
        made: Any = MemoryTransport(broker).consumer("g", ["t"])
        fetch = made.fetch

        async def fetch_and_tell(*given: Any, **options: Any) -> Any:
            listener.fetching.set()
            return await fetch(*given, **options)

        made.fetch = fetch_and_tell
        return made

    consumer = listener.consumer = ThreadedConsumer(make)
    await consumer.start(listener)
    await listener.ready.wait()
    return consumer, listener


async def test_everything_is_forwarded_and_the_listener_is_called_at_home() -> None:
    broker = MemoryBroker()
    consumer, listener = await started(broker)
    assert listener.threads == {threading.current_thread()}
    assert len(threads()) == 1
    broker.append([Outgoing("t", b"1")])
    (chunk,) = await consumer.fetch([P0], max_records=10, timeout=5)
    assert isinstance(chunk, Chunk)
    assert [each.value for each in chunk.records] == [b"1"]
    await consumer.commit({P0: Commit(1)})
    assert await consumer.committed([P0]) == {P0: Commit(1)}
    assert consumer.end_offset(P0) == 1
    assert consumer.known_partitions() == {P0}
    broker.expel("g")
    async with asyncio.timeout(30):
        while "lost" not in listener.log:
            await asyncio.sleep(0.01)
    await consumer.stop()
    assert threads() == []


async def test_a_fetch_that_is_cancelled_hands_its_records_to_the_next_one() -> None:
    broker = MemoryBroker()
    consumer, listener = await started(broker)
    fetching = asyncio.create_task(consumer.fetch([P0], max_records=10, timeout=5))
    assert await asyncio.to_thread(listener.fetching.wait, 5)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    broker.append([Outgoing("t", b"1")])
    (chunk,) = await consumer.fetch([P0], max_records=10, timeout=5)
    assert len(chunk.records) == 1  # type: ignore[union-attr]
    await consumer.stop()


async def test_stopping_during_a_fetch_leaves_nobody_waiting() -> None:
    consumer, listener = await started(MemoryBroker())
    fetching = asyncio.create_task(consumer.fetch([P0], max_records=10, timeout=3600))
    assert await asyncio.to_thread(listener.fetching.wait, 5)
    async with asyncio.timeout(30):
        await consumer.stop()
        await asyncio.gather(fetching, return_exceptions=True)
    assert fetching.done()
    assert threads() == []


async def test_a_start_that_fails_ends_the_thread() -> None:
    def refuse() -> Any:
        raise NotAuthorized("nobody may")

    consumer = ThreadedConsumer(refuse)
    with pytest.raises(NotAuthorized):
        await consumer.start(Listener())
    assert threads() == []
    await consumer.stop()


async def test_before_its_start_and_after_its_end_it_says_that_it_is_not_running() -> None:
    consumer = ThreadedConsumer(lambda: MemoryTransport().consumer("g", ["t"]))
    with pytest.raises(ConnectionFailed, match="not running"):
        await consumer.fetch([], max_records=1, timeout=0)
    with pytest.raises(ConnectionFailed, match="not running"):
        consumer.end_offset(P0)
    await consumer.stop()


class LoopOfAnInterface(asyncio.SelectorEventLoop):
    """Stands for loops that cannot be made just anywhere."""

    def __init__(self, interface: object) -> None:
        super().__init__()


def test_the_thread_has_uvloop_where_its_caller_has_and_asyncios_own_otherwise() -> None:
    uvloop = pytest.importorskip("uvloop")
    for home, kind in [
        (uvloop.new_event_loop(), uvloop.Loop),
        (LoopOfAnInterface(None), asyncio.SelectorEventLoop),
    ]:
        loop = new_loop(home)
        assert type(loop) is kind
        loop.close()
        home.close()
