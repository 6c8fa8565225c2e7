"""A broker beside the program that uses it: in a thread of its own, with a loop of its own.

A program that blocks its own loop would otherwise starve the broker and let its own group sessions expire.
"""

import asyncio
import threading
from pathlib import Path
from typing import Self

from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.codecs import Codecs
from octopus.broker.node import Node
from octopus.broker.request_faults import RequestFaults
from octopus.broker.server import Broker, serve
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.storage import Storage


class BrokerThread:
    """A broker in its own thread.

    Args:
        directory: Where to keep data; None keeps everything in memory.
        settings: How it is reached.
        storage_settings: How data are kept.
        checksum: A compiled CRC-32C, if there is one.
        codecs: Pack and unpack records; gzip is built in.
        grace: Seconds that requests may take to end when the broker stops.
    """

    def __init__(
        self,
        directory: Path | None = None,
        settings: BrokerSettings | None = None,
        storage_settings: StorageSettings | None = None,
        *,
        checksum: Checksum = crc32c,
        codecs: Codecs | None = None,
        grace: float = 5.0,
    ) -> None:
        self._directory = directory
        self._settings = settings or BrokerSettings()
        self._storage_settings = storage_settings
        self._checksum = checksum
        self._codecs = codecs
        self._thread = threading.Thread(target=self._run, name="octopus-broker", daemon=True)
        self._changed = threading.Event()  # it is ready, or it has failed
        self._address: str | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._grace = grace
        self._broker: Broker | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start, and return `host:port` once the broker answers.

        Raises:
            Exception: The broker's own error at its start (directory locked, port taken).
        """
        self._thread.start()
        self._changed.wait()
        if self._address is None:
            self._thread.join()
            assert self._failure is not None
            raise self._failure
        return self._address

    def stop(self) -> None:
        """Stop, and return when everything is on disk. May be called twice."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None and self._address is not None:
            failure, self._failure = self._failure, None
            raise failure

    @property
    def address(self) -> str:
        """`host:port` of the started broker."""
        assert self._address is not None, "the broker does not run"
        return self._address

    @property
    def faults(self) -> RequestFaults:
        """Faults on order, for tests."""
        assert self._broker is not None, "the broker does not run"
        return self._broker.faults

    def counters(self) -> dict[str, int | dict[str, int]]:
        """Return running totals; see `Broker.counters`."""
        assert self._broker is not None, "the broker does not run"
        return self._broker.counters()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001  # carried over to the thread that waits in start or stop
            self._failure = failure
        finally:
            self._changed.set()

    async def _serve(self) -> None:
        storage = Storage.open(
            self._directory,
            self._storage_settings,
            now=Node.now(),
            checksum=self._checksum,
            codecs=self._codecs,
        )
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._broker = Broker(storage, self._settings)
        await serve(self._broker, self._stop, on_ready=self._announce, grace=self._grace)

    def _announce(self, address: str) -> None:
        self._address = address
        self._changed.set()
