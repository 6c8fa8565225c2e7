"""Two stop signals to `octopus run`: within a second they are one stop, and a later one ends it at once. On both brokers."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus.worker.signals import SAME_STOP
from tests.cli.conftest import Octopus, Running, Start

pytestmark = [pytest.mark.process, pytest.mark.slow]
Write = Callable[..., Path]

TRIES = 5
"""A machine that is slow makes other intervals of those that are meant; what comes of them is checked all the same."""

PROGRAM = """
import os
from octopus.worker import signals
judge = signals.is_same_stop
def noted(first, now):
    with open(f"signalled-{os.getpid()}", "a") as file:
        file.write(f"{now - first}\\n")
    return judge(first, now)
signals.is_same_stop = noted
from octopus.__main__ import main
main()
"""

APP = """
import asyncio, pathlib
from octopus import Octopus
app = Octopus({name!r}, settings={{"worker": {{"drain_timeout": 60}}}})

@app.on({name!r}, name="handle")
async def handle(value: int) -> None:
    print("begun", flush=True)
    while not pathlib.Path({name!r}).exists():
        await asyncio.sleep(0.02)
"""


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def address(request: pytest.FixtureRequest) -> str:
    """Where the broker is."""
    at: str = request.getfixturevalue("broker" if request.param == "embedded" else "kafka_cluster")
    return at


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("apart", [0.9, 1.1], ids=["0.9 s apart", "1.1 s apart"])
@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
def test_two_signals_are_one_stop_within_a_second_and_an_end_at_once_beyond(
    start: Start,
    octopus: Octopus,
    topic: str,
    write_app: Write,
    address: str,
    workers: int,
    apart: float,
    number: signal.Signals,
) -> None:
    program = write_app(PROGRAM, "program.py")
    for attempt in range(TRIES):
        name = f"{topic}-{attempt}"
        app = write_app(APP.format(name=name), f"app{attempt}.py")
        octopus("topics", "create", name, "--partitions", "1", brokers=address)
        octopus("publish", name, "1", brokers=address)
        command = ("run", app.name, "--workers", str(workers))
        running = start(*command, brokers=address, program=(sys.executable, str(program)))
        running.wait_for("begun")
        interval = signal_twice(running, number, apart)
        is_same = interval < SAME_STOP
        if is_same:
            running.wait_for("stopping")
            Path(name).touch()  # the handler has all the time that it needs
        result = running.end()
        (group,) = [
            group for group in octopus("groups", "--json", brokers=address).json if group["name"] == f"{name}.handle"
        ]
        assert (result.code, group["lag"]) == ((0, 0) if is_same else (128 + number, 1)), result.err
        assert ("stopped a second time" in result.err) is (not is_same and workers == 1)
        if is_same == (apart < SAME_STOP):
            return
    pytest.fail(f"of {TRIES} tries none came so quickly that it was {apart} s; the last was {interval} s")


def signal_twice(running: Running, number: signal.Signals, apart: float) -> float:
    """Send two signals; return the seconds between them as the process saw them."""
    running.process.send_signal(number)
    time.sleep(apart)
    running.process.send_signal(number)
    noted = Path(f"signalled-{running.process.pid}")
    while not (noted.exists() and noted.read_text().endswith("\n")):
        assert time.monotonic() < running.deadline, running.err
        time.sleep(0.02)
    return float(noted.read_text().splitlines()[0])
