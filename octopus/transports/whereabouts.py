"""Where the embedded broker is: found by its directory's lock file or by its port, else started.

Asked when a transport opens, and again by each of its clients that has to connect anew (`KafkaSettings.locate`): a broker
that died is started again by the first client that notices, and all others find that one.
"""

import asyncio
import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from octopus.broker.lock import LockedError, Owner, owner_of
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.thread import BrokerThread
from octopus.errors import ConfigurationError, ConnectionFailed
from octopus.logs import get_logger
from octopus.transports.broker_codecs import codecs
from octopus.transports.broker_process import BrokerProcess
from octopus.transports.checksum import crc32c

logger = get_logger("octopus.transports")

Mode = Literal["process", "thread"]

LOOK_AGAIN = 0.05
"""Seconds between looks at a broker that is starting."""

START_AGAIN = (0.5, 10.0)
"""Seconds until starting a broker is tried again after it failed: first, longest."""


class Whereabouts:
    """Finds or starts one broker. May be asked from several threads, each with a loop of its own.

    Args:
        directory: Where it keeps records; None for memory.
        mode: Whether to start it as a process or in a thread of this program.
        broker: How it is reached.
        storage: How it keeps records.
        idle_exit: Seconds without any connection after which a process ends.
        start_timeout: Seconds it may take to answer.

    Attributes:
        address: Where it was the last time; None before `open`.
        thread: The broker in this program, if that is where it is.
    """

    def __init__(
        self,
        directory: Path | None,
        mode: Mode,
        broker: BrokerSettings,
        storage: StorageSettings,
        idle_exit: float,
        start_timeout: float,
    ) -> None:
        self._directory = directory
        self._mode = mode
        self._broker = broker
        self._storage = storage
        self._idle_exit = idle_exit
        self._start_timeout = start_timeout
        self._place = str(directory or f"{broker.host}:{broker.port}")
        self._starting = threading.Lock()
        self._child: BrokerProcess | None = None
        self._start_wait = START_AGAIN[0]
        self._refusal: ConnectionFailed | None = None
        self._start_after = 0.0
        self._said_gone: int | None = -1
        self.address: str | None = None
        self.thread: BrokerThread | None = None

    async def open(self) -> str:
        """Join the broker that runs there, or start one, also if one was stopped there before.

        Raises:
            ConnectionFailed: It does not answer in time.
            ConfigurationError: Its directory or port cannot be used.
        """
        self.address = await self._running() or await self._started()
        return self.address

    async def again(self) -> str:
        """Return where the broker is now, for a client that has to connect; start one where the former one died.

        Not where it was stopped: that was meant, and the next command that uses it starts it. And not where its records were in
        memory: an empty broker in its place would look as if all were well.

        Raises:
            ConnectionFailed: There is none, and it says why.
        """
        if self.address is None or self._directory is None:
            return self.address or self._place
        try:
            owner = owner_of(self._directory)
        except OSError as error:
            raise ConnectionFailed(f"The embedded broker of {self._place} cannot be found: {error}.") from error
        if owner.lives and owner.address is not None:
            return self._note(owner.address)
        if owner.was_stopped:
            raise ConnectionFailed(
                f"The embedded broker of {self._place} was stopped. Start it again: octopus broker start, or any other "
                "command that uses it."
            )
        return await self._restarted(owner)

    async def close(self) -> None:
        """End a broker in this program; one in a process of its own ends when no client is connected any more."""
        thread, self.thread, self.address = self.thread, None, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)

    async def _restarted(self, owner: Owner) -> str:
        if self._refusal is not None and time.monotonic() < self._start_after:
            raise self._refusal
        try:
            address = await (self._awaited(None) if owner.lives else self._started())
        except (ConfigurationError, ConnectionFailed) as error:
            self._refusal = ConnectionFailed(str(error))
            self._start_after = time.monotonic() + self._start_wait
            self._start_wait = min(2 * self._start_wait, START_AGAIN[1])
            raise self._refusal from error
        self._refusal, self._start_wait = None, START_AGAIN[0]
        if not owner.lives and self._said_gone != owner.pid:
            self._said_gone = owner.pid  # several clients notice; one line will do
            died = f" (process {owner.pid})" if owner.pid is not None else ""
            logger.info("the embedded broker of %s was gone%s; it runs again at %s", self._place, died, address)
        return self._note(address)

    def _note(self, address: str) -> str:
        if self.address is not None:  # else the transport has been closed meanwhile
            self.address = address
        return address

    async def _running(self) -> str | None:
        """Return the address of a broker that is there already and answers."""
        address = None
        if self._directory is not None:
            with contextlib.suppress(OSError):  # starting one names the fault of the directory
                owner = owner_of(self._directory)
                address = owner.address if owner.lives else None
        elif self._broker.port:
            address = self._place
        return address if address is not None and await _answers(address) else None

    async def _started(self) -> str:
        if self._mode == "process":
            return await self._awaited(await asyncio.to_thread(self._spawn))
        thread = BrokerThread(self._directory, self._broker, self._storage, checksum=crc32c, codecs=codecs())
        try:
            address = await asyncio.to_thread(thread.start)
        except LockedError:
            return await self._awaited(None)  # another client was quicker
        except OSError as error:
            raise ConfigurationError(f"The embedded broker cannot start at {self._place}: {error}.") from error
        self.thread = thread
        return address

    def _spawn(self) -> BrokerProcess:
        """Start a process, unless one of ours is starting; of several programs that do, the lock lets one go on."""
        with self._starting:
            if self._child is None or self._child.has_ended:
                self._child = BrokerProcess(self._directory, self._broker, self._storage, self._idle_exit)
                self._child.start(sys.executable)
            return self._child

    async def _awaited(self, child: BrokerProcess | None) -> str:
        """Wait for the address of a broker that is starting, started by any client."""
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if address := await self._running():
                return address
            if child is not None and (failure := child.failure()) is not None:
                raise ConfigurationError(f"The embedded broker did not start: {failure}")
            await asyncio.sleep(LOOK_AGAIN)
        raise ConnectionFailed(f"The embedded broker at {self._place} did not answer within {self._start_timeout:g} s.")


async def _answers(address: str) -> bool:
    """Tell whether a broker answers ApiVersions there: an open port alone may be anything."""
    host, _, port = address.rpartition(":")
    # length, ApiVersions 0, correlation id 1, no client id; a broker answers with its length and the same id
    question = bytes.fromhex("0000000a 0012 0000 00000001 ffff".replace(" ", ""))
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write(question)
                answer = await reader.readexactly(8)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return answer[4:] == b"\x00\x00\x00\x01"
