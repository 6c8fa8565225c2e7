"""Embedded brokers that run on this machine: which, where, and the address of the one that the settings mean."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from octopus.broker.lock import read_owner
from octopus.config import Settings

MODULE = "octopus.transports.broker_process"


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


def _commands() -> Iterator[tuple[int, list[str]]]:
    if Path("/proc/self/cmdline").exists():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    yield int(entry.name), os.fsdecode((entry / "cmdline").read_bytes()).rstrip("\0").split("\0")
                except OSError:
                    continue  # it has ended, or is nobody we may look at
        return
    listing = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False)  # noqa: S607
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        head, separator, arguments = command.partition(f"-m {MODULE} ")
        if separator:
            yield int(pid), [head, "-m", MODULE, arguments]
