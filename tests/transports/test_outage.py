"""What a program hears of an outage: two lines, whatever of Octopus it uses and however it has set up logging."""

import sys
from pathlib import Path

import pytest

from octopus.testing.faults import ChildProcess, EmbeddedBroker
from tests.staged import until

pytestmark = pytest.mark.process

PROGRAM = """
import asyncio, logging, os, sys
import aiokafka
from octopus import Octopus

use, set_up, address = sys.argv[1:]
app = Octopus("lab", settings={"brokers": address, "consumer": {"engine": use if use == "librdkafka" else "aiokafka"}})

@app.on("readings")
async def store(value: int) -> None:
    print("handled", value, flush=True)

def synchronous():
    with app.synchronous_publisher() as publisher:
        publisher.publish("readings", 1)
        print("handled 1", flush=True)
        sys.stdin.readline()

async def connected():
    async with app.connected():
        await app.publish("readings", 1)
        print("handled 1", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

async def running():
    async with app.running():
        await app.publish("readings", 1)
        await asyncio.to_thread(sys.stdin.readline)

async def neighbour():
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=address) as theirs:
        publishing = asyncio.create_task(publish_forever(theirs))
        await connected()
        publishing.cancel()

async def publish_forever(theirs):
    while True:
        await theirs.send("readings", b"2")
        await asyncio.sleep(0.1)

exec(set_up)
if use == "synchronous":
    synchronous()
else:
    asyncio.run({"connected": connected, "neighbour": neighbour}.get(use, running)())
"""

LINES = 'logging.basicConfig(format="%(name)s: %(message)s", level="INFO")'


class Program:
    """A program that uses Octopus, and what it has printed.

    Args:
        use: What it uses.
        set_up: How it sets up logging, in Python.
        broker: Where.
        directory: For its output.
    """

    def __init__(self, use: str, set_up: str, broker: EmbeddedBroker, directory: Path) -> None:
        self._broker = broker
        command = [sys.executable, "-c", PROGRAM, use, set_up, broker.address]
        self.process = ChildProcess(command, log=directory / "log", environment={"PYTHONPATH": str(Path.cwd())})

    @property
    def lines(self) -> list[str]:
        """What it has printed."""
        return self.process.written().splitlines()

    async def survive_an_outage(self) -> None:
        """Run it over an outage; return when it says that this has ended."""
        await until(lambda: "handled 1" in self.lines, 60)
        self._broker.kill()
        await until(lambda: self.has("does not answer"), 60)
        await self._broker.start()
        await until(lambda: self.has("answers again"), 60)

    def has(self, text: str) -> bool:
        """Tell whether it has printed a text."""
        return any(text in line for line in self.lines)


@pytest.mark.parametrize("use", ["synchronous", "connected", "aiokafka", "librdkafka"])
@pytest.mark.parametrize("set_up", ["", LINES], ids=["no logging set-up", "a set-up of its own"])
async def test_a_program_hears_of_an_outage_once_when_it_begins_and_once_when_it_ends(
    use: str, set_up: str, tmp_path: Path
) -> None:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        program = Program(use, set_up, broker, tmp_path)
        with program.process:
            await program.survive_an_outage()
            said = [line for line in program.lines if "handled" not in line]
    prefix = "octopus" if set_up else "127.0.0.1"
    assert all(line.startswith(prefix) for line in said)
    outage = [line for line in said if "answer" in line]
    assert ["does not answer" in line for line in outage] == [True, False]
    assert set_up or said == outage


async def test_another_client_of_aiokafka_in_the_program_is_logged_as_ever(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        program = Program("neighbour", LINES, broker, tmp_path)
        with program.process:
            await program.survive_an_outage()
            await until(lambda: program.has("aiokafka: Unable"), 60)
            assert not program.has("octopus.transports.aiokafka")


async def test_a_program_can_ask_for_what_the_client_library_logs(tmp_path: Path) -> None:
    asked = LINES + '; logging.getLogger("octopus.transports.aiokafka").setLevel("WARNING")'
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        program = Program("connected", asked, broker, tmp_path)
        with program.process:
            await program.survive_an_outage()
            assert program.has("octopus.transports.aiokafka: Unable")
            assert not any(line.startswith("aiokafka") for line in program.lines)
