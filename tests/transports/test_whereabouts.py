"""Clients of the embedded broker find it again, or start it again, after it died; not after it was stopped."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from octopus.broker.lock import Owner, owner_of
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.thread import BrokerThread
from octopus.errors import ConnectionFailed, TransportError
from octopus.operations.brokers import running_brokers
from octopus.synchronous import SynchronousPublisher
from octopus.transports.base import Outgoing, Producer, Transport
from octopus.transports.opening import open_transport
from octopus.transports.whereabouts import Whereabouts

from .members import Member

pytestmark = pytest.mark.process

PATIENCE = 40.0
T = "topic"

Work = Callable[[], Awaitable[object]]
"""What a client does again and again; it may fail while the broker is away."""


def opened(directory: Path) -> Transport:
    return open_transport(
        f"embedded://{directory}", idle_exit=20.0, durability="os", request_timeout=5.0, metadata_max_age=1.0
    )


def kill(directory: Path) -> Owner:
    owner = owner_of(directory)
    assert owner.lives
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while owner_of(directory).pid == owner.pid and owner_of(directory).lives:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return owner


async def in_the_end(work: Work) -> object:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await work()
        except TransportError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def started(made: Any) -> Any:
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def publishing(transport: Transport, stack: AsyncExitStack) -> Work:
    producer = await stack.enter_async_context(started(transport.producer()))
    return lambda: producer.send(Outgoing(T, b"x"))


async def in_transactions(transport: Transport, stack: AsyncExitStack) -> Work:
    async def work() -> None:
        async with started(transport.transactional_producer("id")) as producer:
            await producer.begin()
            await producer.send_many([Outgoing(T, b"x")])
            await producer.commit()

    return work


async def administering(transport: Transport, stack: AsyncExitStack) -> Work:
    admin = await stack.enter_async_context(started(transport.admin()))
    return admin.topics


async def publishing_synchronously(transport: Transport, stack: AsyncExitStack) -> Work:
    def connect() -> AbstractAsyncContextManager[Producer]:
        return started(transport.producer())  # type: ignore[no-any-return]

    publisher = SynchronousPublisher(connect)
    await asyncio.to_thread(publisher.__enter__)
    stack.push_async_callback(asyncio.to_thread, publisher.__exit__, None, None, None)
    return lambda: asyncio.to_thread(publisher.publish, T, b"x")


CLIENTS: dict[str, Callable[[Transport, AsyncExitStack], Coroutine[Any, Any, Work]]] = {
    "a producer": publishing,
    "a transactional producer": in_transactions,
    "an admin client": administering,
    "a synchronous publisher": publishing_synchronously,
}


@pytest.mark.parametrize("port", ["free", "taken"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_whose_broker_dies_starts_it_again_and_goes_on(directory: Path, client: str, port: str) -> None:
    transport = opened(directory)
    await transport.open()
    async with AsyncExitStack() as stack:
        work = await CLIENTS[client](transport, stack)
        await work()
        with closing(died_and(port, directory)):
            await in_the_end(work)
            assert transport.address == owner_of(directory).address
    await transport.close()


def died_and(port: str, directory: Path) -> socket.socket:
    """Kill the broker; its port is free then, or somebody else's."""
    address = kill(directory).address
    assert address is not None
    taking = socket.socket()
    if port == "taken":
        taking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taking.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taking.listen()
    return taking


@pytest.mark.parametrize("port", ["free", "taken"])
@pytest.mark.parametrize("engine", ["aiokafka", "librdkafka"])
async def test_a_group_member_whose_broker_dies_reads_on_in_the_next_one(
    directory: Path, engine: str, port: str
) -> None:
    transport = opened(directory)
    await transport.open()
    async with started(transport.producer()) as producer:
        await producer.send(Outgoing(T, b"before"))
        member = Member(transport, "g", [T], engine=engine)
        await member.consumer.start(member)
        await member.until(lambda: member.count)
        with closing(died_and(port, directory)):
            await in_the_end(lambda: producer.send(Outgoing(T, b"after")))
            deadline = time.monotonic() + PATIENCE
            while b"after" not in member.values():
                assert time.monotonic() < deadline
                try:
                    await member.turn()
                except ConnectionFailed:  # at another address; a worker makes a new member then, and so do we
                    await member.consumer.stop()
                    member = Member(transport, "g", [T], engine=engine)
                    await member.consumer.start(member)
        await member.consumer.stop()
    await transport.close()


async def test_of_many_who_notice_at_once_one_starts_the_broker(directory: Path) -> None:
    transports = [opened(directory) for _ in range(3)]
    async with AsyncExitStack() as stack:
        works = []
        for transport in transports:
            await transport.open()
            stack.push_async_callback(transport.close)
            works += [await publishing(transport, stack), await administering(transport, stack)]
        await asyncio.gather(*(work() for work in works))
        kill(directory)
        await asyncio.gather(*(in_the_end(work) for work in works))
        assert len({transport.address for transport in transports}) == 1
        deadline = time.monotonic() + PATIENCE
        while len([each for each in running_brokers() if each.directory == str(directory)]) != 1:
            assert time.monotonic() < deadline, "those that were too late did not end"
            await asyncio.sleep(0.05)


async def test_a_broker_that_was_stopped_is_waited_for_until_somebody_begins_anew(directory: Path) -> None:
    transport = opened(directory)
    await transport.open()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(transport.close)
        admin = await administering(transport, stack)
        await admin()
        owner = owner_of(directory)
        assert owner.pid is not None
        os.kill(owner.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while owner_of(directory).lives:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        for _ in range(3):
            with pytest.raises(ConnectionFailed, match="was stopped"):
                await admin()
        assert not owner_of(directory).lives
        another = opened(directory)
        await another.open()
        assert another.address == transport.address, "on the port that is known"
        await in_the_end(admin)
        await another.close()


async def test_whoever_has_the_port_of_a_dead_broker_is_not_taken_for_it(directory: Path, tmp_path: Path) -> None:
    with BrokerThread(tmp_path / "other") as other:
        directory.mkdir()
        (directory / "lock").write_text(json.dumps({"pid": 1, "address": other.address}))
        transport = opened(directory)
        await transport.open()
        assert transport.address != other.address
        await transport.close()


async def test_a_start_that_fails_is_not_repeated_by_everybody_at_once(directory: Path) -> None:
    whereabouts = Whereabouts(directory, "process", BrokerSettings(), StorageSettings(durability="os"), 20.0, 30.0)
    await whereabouts.open()
    kill(directory)
    (directory / "catalog").write_bytes(b"nonsense")
    with pytest.raises(ConnectionFailed) as first:
        await whereabouts.again()
    with pytest.raises(ConnectionFailed) as second:
        await whereabouts.again()
    assert first.value is second.value
