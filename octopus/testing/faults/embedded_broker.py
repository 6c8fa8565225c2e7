"""The embedded broker as a process that a test may kill, freeze, restart, and throw back in time."""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from octopus.broker.limits import Limits
from octopus.broker.process import run
from octopus.broker.request_faults import RequestFaults
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.throttling import Quotas, Resource
from octopus.testing.faults.network import free_port
from octopus.testing.faults.processes import ChildProcess, end_with_parent, python_module
from octopus.transports.broker_codecs import codecs
from octopus.transports.checksum import crc32c

START_TIMEOUT = 120.0
"""Seconds; on a machine with much else to do a start of Python takes its time."""


class EmbeddedBroker:
    """A broker in a process of its own, always at the same address.

    Args:
        directory: Its data, kept over restarts; its log is written beside it.
        port: Where it listens; a free port when 0.
        advertised_port: Port of a proxy before it, to which clients are sent.
        durability: `fsync` or `os`.
        partitions: Of topics that are created on first use.
        session_timeout: Shortest session a group member may ask for, seconds: tests do not want to wait for six.
        quotas: What each client may use per second (bytes of `produce` and `fetch`, `request`s) before it is throttled.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        advertised_port: int | None = None,
        durability: str = "os",
        partitions: int = 1,
        session_timeout: float = 1.0,
        quotas: Mapping[Resource, float] | None = None,
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        arguments = {
            "directory": str(directory),
            "port": self.port,
            "advertised_port": advertised_port,
            "durability": durability,
            "partitions": partitions,
            "min_session_timeout_ms": int(session_timeout * 1000),
            "quotas": dict(quotas or {}),
        }
        self.process = ChildProcess(
            python_module("octopus.testing.faults.embedded_broker", json.dumps(arguments)),
            log=directory.with_name(directory.name + ".log"),
            own_session=True,
        )

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()

    async def start(self) -> None:
        """Start it, and return when it listens.

        Raises:
            RuntimeError: It ended instead.
            TimeoutError: It did not listen in time.
        """
        self.process.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not await self._listens():
            if not self.process.is_running:
                raise RuntimeError(f"the broker did not start: {self.process.written()[-2000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the broker does not listen at {self.address} after {START_TIMEOUT:g} s")
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash of its process would (SIGKILL)."""
        self.process.kill()

    async def restart(self) -> None:
        """Kill it and start it again on its data."""
        self.process.kill()
        await self.start()

    def remember(self) -> Path:
        """Copy its data as they are on disk now, and return the copy's place: see `forget_since`."""
        copy = self.directory.with_name(self.directory.name + ".then")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.directory, copy)
        return copy

    async def forget_since(self, copy: Path) -> None:
        """Crash, lose everything written since `copy` was made, and start: a power cut without fsync.

        Copy while nothing is written, or the copy is torn as well, which is fair but not repeatable.
        """
        self.process.kill()
        shutil.rmtree(self.directory)
        shutil.copytree(copy, self.directory)
        await self.start()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


def main(text: str) -> None:
    """Run the broker that `EmbeddedBroker` describes."""
    end_with_parent()
    given: dict[str, Any] = json.loads(text)
    run(
        Path(given["directory"]),
        BrokerSettings(
            port=given["port"],
            advertised_host="127.0.0.1" if given["advertised_port"] else None,
            advertised_port=given["advertised_port"],
            default_partitions=given["partitions"],
            limits=Limits(min_session_timeout_ms=given["min_session_timeout_ms"]),
        ),
        StorageSettings(durability=given["durability"]),
        checksum=crc32c,
        codecs=codecs(),
        faults=RequestFaults(Quotas(given["quotas"])),
    )


if __name__ == "__main__":
    main(sys.argv[1])
