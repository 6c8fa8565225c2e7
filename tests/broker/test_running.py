"""A broker in a thread, and in a process that ends by itself."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octopus.broker.codes import Code
from octopus.broker.lock import LockedError, read_owner
from octopus.broker.settings import BrokerSettings
from octopus.broker.thread import BrokerThread
from octopus.errors import ConfigurationError
from tests.broker.requests_and_answers import (
    API_VERSIONS,
    CREATE_TOPICS,
    FETCH,
    PRODUCE,
    batch,
    create_topic,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.wire_client import connected

PROGRAM = """
import sys
from pathlib import Path
from octopus.broker.process import run
run(Path(sys.argv[1]), idle_exit=float(sys.argv[2]) if len(sys.argv) > 2 else None)
"""


def test_a_thread_starts_answers_and_stops_twice(tmp_path: Path) -> None:
    broker = BrokerThread(tmp_path)
    address = broker.start()
    assert asyncio.run(answers(address))
    assert broker.counters()["connections_total"] == 1
    broker.stop()
    broker.stop()
    assert not asyncio.run(answers(address))


def test_starting_on_a_taken_directory_or_port_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = {*threading.enumerate()}  # other tests' brokers among them
    with BrokerThread(tmp_path / "one") as broker:
        with pytest.raises(LockedError) as caught:
            BrokerThread(tmp_path / "one").start()
        assert caught.value.address == broker.address
        port = int(broker.address.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match="in use"):
            BrokerThread(tmp_path / "two", BrokerSettings(port=port)).start()
        with BrokerThread(tmp_path / "two"):
            pass
    assert not [each for each in {*threading.enumerate()} - before if each.name == "octopus-broker"]


def test_a_thread_leaves_the_signal_handlers_of_the_program_alone() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with BrokerThread():
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str]]]:
    children = []

    def start(*arguments: str) -> tuple[subprocess.Popen[bytes], str]:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), *arguments])
        children.append(process)
        deadline = time.monotonic() + 10
        while (owner := read_owner(tmp_path)) != (process.pid, owner[1]) or owner[1] is None:
            assert time.monotonic() < deadline, "no address was announced"
            assert process.poll() is None, "the broker ended"
            time.sleep(0.01)
        return process, owner[1]

    yield start
    for process in children:
        process.kill()
        process.wait()


@pytest.mark.process
def test_a_child_announces_its_address_and_ends_when_nobody_was_connected_for_a_while(
    child: Callable[..., object],
) -> None:
    process, address = child("0.3")

    async def stay() -> None:
        async with connected(address) as client:
            await asyncio.sleep(0.6)
            assert (await client.ask(API_VERSIONS, 0)).int16() == Code.NONE

    asyncio.run(stay())
    assert process.wait(timeout=5) == 0


@pytest.mark.process
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_acknowledged_survives_the_end_of_the_process(child: Callable[..., object], end: int) -> None:
    process, address = child()

    async def write() -> None:
        async with connected(address) as client, connected(address) as waiting:
            await client.ask(CREATE_TOPICS, 2, create_topic("t"))
            for number in range(50):
                await client.put(PRODUCE, 3, produce("t", batch(b"%d" % number)))
            assert [produced((await client.take())[1]) for _ in range(50)] == [[(Code.NONE, n)] for n in range(50)]
            await waiting.put(FETCH, 4, fetch("t", 50, max_wait=60_000))
            process.send_signal(end)
            if end == signal.SIGTERM:
                assert fetched((await waiting.take())[1]) == [(Code.NONE, 50, b"")], "waiting requests are answered"

    asyncio.run(write())
    assert process.wait(timeout=10) == (0 if end == signal.SIGTERM else -end)

    async def read() -> None:
        async with connected(child()[1]) as client:
            [(code, stable, records)] = fetched(await client.ask(FETCH, 4, fetch("t")))
            assert (code, stable) == (Code.NONE, 50)
            assert len(records) > 50 * 61

    asyncio.run(read())


async def answers(address: str) -> bool:
    try:
        async with connected(address) as client:
            return (await client.ask(API_VERSIONS, 0)).int16() == Code.NONE
    except ConnectionError:
        return False
