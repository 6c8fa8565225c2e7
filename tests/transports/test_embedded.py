"""The embedded broker is found or started, shared, and gone when nobody needs it."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from octopus.broker.lock import read_owner
from octopus.errors import ConfigurationError, TransportError
from octopus.events import Published
from octopus.transports.base import Outgoing, Transport
from octopus.transports.opening import open_transport


async def publish(transport: Transport, value: bytes) -> Published:
    producer = transport.producer()
    await producer.start()
    published = await producer.send(Outgoing("topic", value))
    await producer.stop()
    return published


async def test_a_broker_in_a_thread_serves_and_ends_with_its_transport() -> None:
    transport = open_transport("embedded://", mode="thread")
    with pytest.raises(TransportError, match="not open"):
        transport.producer()
    await transport.open()
    assert (await publish(transport, b"x")).offset == 0
    host, port = transport.address.split(":")
    await transport.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


async def test_a_second_transport_to_the_same_directory_joins_the_first(directory: Path) -> None:
    first, second = (open_transport(f"embedded://{directory}", mode="thread", durability="os") for _ in range(2))
    await first.open()
    await second.open()
    assert first.address == second.address
    assert [(await publish(transport, b"x")).offset for transport in (first, second)] == [0, 1]
    await second.close()
    assert (await publish(first, b"x")).offset == 2
    await first.close()


@pytest.mark.process
async def test_a_broker_process_is_shared_outlives_its_starter_and_ends_when_nobody_is_connected(
    directory: Path,
) -> None:
    transports = [open_transport(f"embedded://{directory}", idle_exit=1.0, durability="os") for _ in range(3)]
    await asyncio.gather(*(transport.open() for transport in transports))
    assert len({transport.address for transport in transports}) == 1, "one won the race, the others joined"
    assert (await publish(transports[0], b"kept")).offset == 0
    await transports[0].close()
    assert (await publish(transports[1], b"kept too")).offset == 1
    deadline = time.monotonic() + 15
    while read_owner(directory)[0] is not None:
        assert time.monotonic() < deadline, "the broker did not end"
        await asyncio.sleep(0.1)
    again = open_transport(f"embedded://{directory}", idle_exit=1.0, durability="os")
    await again.open()
    assert (await publish(again, b"third")).offset == 2
    await again.close()


@pytest.mark.parametrize("mode", ["thread", pytest.param("process", marks=pytest.mark.process)])
async def test_a_directory_that_cannot_be_is_named(tmp_path: Path, mode: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*is a file, not a directory"):
        await open_transport(f"embedded://{tmp_path / 'file' / 'data'}", mode=mode).open()


@pytest.mark.parametrize("mode", ["thread", pytest.param("process", marks=pytest.mark.process)])
async def test_a_port_that_something_else_has_is_named(mode: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            await open_transport("embedded://", mode=mode, port=port).open()


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="mode"):
        open_transport("embedded://", mode="fork")
    with pytest.raises(ConfigurationError, match="memory"):
        open_transport("memory://x", colour="red")
