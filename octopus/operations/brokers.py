"""Embedded brokers that run on this machine: found, started and stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from octopus.broker.lock import read_owner
from octopus.broker.process import run
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.config import Settings
from octopus.errors import ConfigurationError, ConnectionFailed, OperationFailed, TransportError
from octopus.transports.broker_codecs import codecs
from octopus.transports.broker_process import BrokerProcess
from octopus.transports.checksum import crc32c
from octopus.transports.opening import open_transport

MODULE = "octopus.transports.broker_process"

START_WAIT, STOP_WAIT = 30.0, 15.0
"""Seconds that a broker has to answer, and to end."""

LOOK_WAIT = 0.05
"""Seconds between two looks whether it does."""


class RunningBroker(NamedTuple):
    """A broker in a process of its own.

    Attributes:
        pid: The process.
        address: `host:port`; None while it starts.
        directory: Where it keeps records; None for memory.
    """

    pid: int
    address: str | None
    directory: str | None

    @property
    def port(self) -> int | None:
        """Where it listens."""
        return int(self.address.rpartition(":")[2]) if self.address else None


def running_brokers() -> list[RunningBroker]:
    """Return the broker processes of this machine that may be seen, by reading process lists."""
    found = []
    for pid, command in _commands():
        if MODULE not in command:
            continue
        try:
            given = json.loads(command[-1])
        except ValueError:
            continue
        directory = given.get("directory")
        address = read_owner(Path(directory))[1] if directory else f"{given.get('host')}:{given.get('port')}"
        found.append(RunningBroker(pid, address, directory))
    return sorted(found)


def meant_broker(settings: Settings) -> RunningBroker | None:
    """Return the running broker process that the settings mean, if there is one."""
    broker = settings.broker
    directory = str(Path(broker.directory).expanduser().absolute()) if broker.directory else None
    for running in running_brokers():
        if running.directory == directory and (directory or running.address == f"{broker.host}:{broker.port}"):
            return running
    return None


def find_broker(settings: Settings, directory: Path | None = None, port: int | None = None) -> RunningBroker:
    """Return the running broker that the settings mean, or the one that is named.

    Args:
        settings: Mean one, where none is named.
        directory: Only a broker that keeps its records there.
        port: Only a broker that listens on this port.

    Raises:
        OperationFailed: No such broker runs.
        ConfigurationError: Several do.
    """
    if directory is None and port is None:
        meant = meant_broker(settings)
        found = [] if meant is None else [meant]
    else:  # what is named must fit: a broker of another user may run beside ours
        found = [
            running
            for running in running_brokers()
            if (directory is None or running.directory == str(directory.expanduser().absolute()))
            and (port is None or running.port == port)
        ]
    if not found:
        raise OperationFailed("No such embedded broker runs. Those that run: octopus broker status")
    if len(found) > 1:
        places = ", ".join(running.directory or "in memory" for running in found)
        raise ConfigurationError(f"{len(found)} brokers fit ({places}); say which with --dir.")
    return found[0]


def plan_start(settings: Settings, port: int | None = None) -> RunningBroker | None:
    """Return the broker that the settings mean if it runs already; None when it may be started.

    Args:
        settings: Mean one.
        port: The port that is asked for; None or 0 when any will do.

    Raises:
        ConfigurationError: No client could find the broker.
        OperationFailed: It runs already, on another port.
    """
    if settings.broker.port == 0 and settings.broker.directory is None:
        raise ConfigurationError(
            "A broker in memory on a free port could not be found by any client: give --port or --dir."
        )
    running = meant_broker(settings)
    if running is not None and port not in (None, 0, running.port):
        kept = running.directory or "memory"
        raise OperationFailed(
            f"The broker with records in {kept} runs already, at {running.address}. Stop it first: octopus broker stop"
        )
    return running


async def start_broker(settings: Settings) -> RunningBroker:
    """Start the broker that the settings mean, in a process that stays until it is stopped; return it once it answers.

    Raises:
        ConfigurationError: It does not start; the sentence says why.
        ConnectionFailed: It does not answer in time.
    """
    child = BrokerProcess(*broker_arguments(settings), idle_exit=float("inf"))
    child.start(sys.executable)
    try:
        async with asyncio.timeout(START_WAIT):
            while True:
                if (failure := child.failure()) is not None:
                    raise ConfigurationError(f"The broker did not start: {failure}")
                running = meant_broker(settings)
                if running is not None and running.address is not None and await _answers(running.address):
                    return running
                await asyncio.sleep(LOOK_WAIT)
    except TimeoutError as error:
        raise ConnectionFailed(f"The broker did not answer within {START_WAIT:g} s.") from error


def run_here(settings: Settings) -> None:
    """Run the broker that the settings mean in this process, until a signal ends it. Raises as `start_broker`."""
    run(*broker_arguments(settings), checksum=crc32c, codecs=codecs())


async def stop_broker(running: RunningBroker) -> None:
    """Stop a broker; return once its process has ended.

    Raises:
        OperationFailed: It is another user's, or does not end in time.
    """
    try:
        os.kill(running.pid, signal.SIGTERM)
    except PermissionError as error:
        raise OperationFailed(f"Process {running.pid} belongs to another user.") from error
    try:
        async with asyncio.timeout(STOP_WAIT):
            while running.pid in (other.pid for other in running_brokers()):  # noqa: ASYNC110 - it tells only its parent
                await asyncio.sleep(LOOK_WAIT)
    except TimeoutError as error:
        raise OperationFailed(f"Process {running.pid} did not end within {STOP_WAIT:g} s.") from error


def broker_arguments(settings: Settings) -> tuple[Path | None, BrokerSettings, StorageSettings]:
    """Return the directory of the broker that the settings mean, how it is reached, and how it keeps records."""
    broker = settings.broker
    retention = -1 if broker.retention is None else int(broker.retention * 1000)
    return (
        Path(broker.directory).expanduser().absolute() if broker.directory else None,
        BrokerSettings(host=broker.host, port=broker.port, default_partitions=broker.partitions),
        StorageSettings(
            durability=broker.durability,
            topic_defaults={
                "retention.ms": str(retention),
                "retention.bytes": str(-1 if broker.retention_bytes is None else broker.retention_bytes),
            },
        ),
    )


async def _answers(address: str) -> bool:
    transport = open_transport(address)
    try:
        await transport.open()
    except TransportError:
        return False
    await transport.close()
    return True


def _commands() -> Iterator[tuple[int, list[str]]]:
    if Path("/proc/self/cmdline").exists():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    yield int(entry.name), os.fsdecode((entry / "cmdline").read_bytes()).rstrip("\0").split("\0")
                except OSError:
                    continue  # it has ended, or may not be looked at
        return
    listing = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False)  # noqa: S607
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        head, separator, arguments = command.partition(f"-m {MODULE} ")
        if separator:
            yield int(pid), [head, "-m", MODULE, arguments]
