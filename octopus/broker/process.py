"""A broker that owns its process: a child that several programs share."""

import asyncio
import signal
from pathlib import Path

from octopus.broker.checksum import Checksum, crc32c
from octopus.broker.codecs import Codecs
from octopus.broker.files import raise_descriptor_limit
from octopus.broker.node import Node
from octopus.broker.request_faults import RequestFaults
from octopus.broker.server import Broker, serve
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.storage import Storage


def run(
    directory: Path | None,
    settings: BrokerSettings | None = None,
    storage_settings: StorageSettings | None = None,
    *,
    idle_exit: float | None = None,
    grace: float = 5.0,
    checksum: Checksum = crc32c,
    codecs: Codecs | None = None,
    faults: RequestFaults | None = None,
) -> None:
    """Run a broker until SIGTERM, SIGINT, or `idle_exit` seconds without any connection.

    The address is written into the directory's lock file, where processes that find the directory taken look for it.

    Args:
        directory: Where to keep data; None keeps everything in memory.
        settings: How it is reached.
        storage_settings: How data are kept.
        idle_exit: Seconds without any connection after which to stop; None for never.
        grace: Seconds that requests may take to end.
        checksum: A compiled CRC-32C, if there is one.
        codecs: Pack and unpack records; gzip is built in.
        faults: For tests.

    Raises:
        LockedError: A living broker owns the directory.
        IncompatibleFormat: A newer version wrote it.
        ConfigurationError: The directory cannot be one, or the address cannot be listened at.
    """
    raise_descriptor_limit()
    storage = Storage.open(directory, storage_settings, now=Node.now(), checksum=checksum, codecs=codecs)
    asyncio.run(_serve(Broker(storage, settings, faults), idle_exit, grace))


async def _serve(broker: Broker, idle_exit: float | None, grace: float) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        broker.note_stop()
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, on_signal)
    await serve(broker, stop, idle_exit=idle_exit, grace=grace)
