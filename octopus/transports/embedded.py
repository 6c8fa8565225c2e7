"""The embedded broker as a transport: found or started on this machine, then spoken to as to any Kafka.

The default when no cluster is named. By directory it is durable and shared: whoever comes first starts it as a process of
its own, others join by the address in the directory's lock file, and it ends when nobody has been connected for a while.
"""

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from octopus.broker.lock import LockedError, read_owner
from octopus.broker.settings import BrokerSettings
from octopus.broker.storage import StorageSettings
from octopus.broker.thread import BrokerThread
from octopus.config import Settings
from octopus.errors import ConfigurationError, ConnectionFailed, TransportError
from octopus.transports.base import Admin, Consumer, Producer, TransactionalProducer
from octopus.transports.broker_process import BrokerProcess, decompressors
from octopus.transports.checksum import crc32c
from octopus.transports.kafka import KafkaTransport, consumer_class

Mode = Literal["process", "thread"]


class EmbeddedTransport:
    """A way to the embedded broker.

    Args:
        directory: Where records are kept; without one they are in memory and gone when the broker ends.
        mode: `process` starts a broker that outlives this program and serves others too; `thread` starts it inside this
            program, for embedding and tests.
        host: Address it listens on.
        port: Port it listens on; 0 takes a free one.
        durability: `fsync` or `os`; see the broker's settings.
        partitions: Of topics that are created on first use.
        retention: Seconds after which records are deleted; None keeps them.
        retention_bytes: A partition's oldest records beyond this are deleted; None keeps them.
        idle_exit: Seconds without any connection after which a broker process ends.
        start_timeout: Seconds it may take to answer.
        **options: Of `KafkaSettings`, such as `client_id`.

    Raises:
        ConfigurationError: An option or mode that does not exist.
    """

    name = "embedded"

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        mode: Mode = "process",
        host: str = "127.0.0.1",
        port: int = 0,
        durability: Literal["fsync", "os"] = "fsync",
        partitions: int = 1,
        retention: float | None = 7 * 86400.0,
        retention_bytes: int | None = None,
        idle_exit: float = 300.0,
        start_timeout: float = 30.0,
        **options: Any,
    ) -> None:
        if mode not in ("process", "thread"):
            raise ConfigurationError(f"mode is {mode!r}; it must be 'process' or 'thread'.")
        self._directory = Path(directory).expanduser().absolute() if directory is not None else None
        # a process that keeps records in memory on a free port could be found by nobody
        self._mode: Mode = "thread" if self._directory is None and not port else mode
        self._broker_settings = BrokerSettings(host=host, port=int(port), default_partitions=int(partitions))
        self._storage_settings = StorageSettings(
            durability=durability,
            topic_defaults={
                "retention.ms": str(-1 if retention is None else int(float(retention) * 1000)),
                "retention.bytes": str(-1 if retention_bytes is None else int(retention_bytes)),
            },
        )
        self._idle_exit = float(idle_exit)
        self._start_timeout = float(start_timeout)
        self._options = {"create_topics": True, **options}
        KafkaTransport.at("localhost", self._options)  # a wrong one is named here, not when the broker runs
        self._thread: BrokerThread | None = None
        self._kafka: KafkaTransport | None = None

    @classmethod
    def from_settings(cls, settings: Settings, brokers: str = "", **options: Any) -> "EmbeddedTransport":
        """Return the transport that the settings describe; `embedded:///directory` in `brokers` names another directory."""
        broker = settings.broker
        consumer_class(settings.consumer.engine)  # a package that is missing is named here, not when a group begins
        if settings.consumer.group_protocol == "consumer":
            raise ConfigurationError(
                'The embedded broker has no group protocol "consumer" (KIP-848). Leave consumer.group_protocol out; '
                "cooperative-sticky, the default with librdkafka, rebalances incrementally, too."
            )
        return cls(
            brokers.partition("://")[2] or broker.directory,
            host=broker.host,
            port=broker.port,
            durability=broker.durability,
            partitions=broker.partitions,
            retention=broker.retention,
            retention_bytes=broker.retention_bytes,
            **options,
        )

    @property
    def address(self) -> str:
        """The broker's address once `open`, before that its directory."""
        return self._kafka.address if self._kafka is not None else f"embedded://{self._directory or ''}"

    async def open(self) -> None:
        """Join the broker that runs there, or start one.

        Raises:
            ConnectionFailed: It does not answer in time.
            ConfigurationError: Its directory or port cannot be used.
        """
        if self._kafka is None:
            address = await self._running() or await self._started()
            self._kafka = KafkaTransport.at(address, self._options)

    async def close(self) -> None:
        """End a broker in this program; one in a process of its own ends when nobody is connected any more."""
        thread, self._thread, self._kafka = self._thread, None, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)

    def consumer(self, group: str, topics: "Collection[str] | re.Pattern[str]", **options: Any) -> Consumer:
        """Return a consumer; see `KafkaConsumer` for the options."""
        return self._opened().consumer(group, topics, **options)

    def producer(self, **options: Any) -> Producer:
        """Return a producer; see `KafkaProducer` for the options."""
        return self._opened().producer(**options)

    def transactional_producer(self, transactional_id: str, **options: Any) -> TransactionalProducer:
        """Return a producer that shares its fate with the offsets it commits."""
        return self._opened().transactional_producer(transactional_id, **options)

    def admin(self) -> Admin:
        """Return an admin client."""
        return self._opened().admin()

    @property
    def faults(self) -> Any:
        """Faults on order of a broker in this program, for tests."""
        assert self._thread is not None, "only a broker in this program takes faults"
        return self._thread.faults

    def _opened(self) -> KafkaTransport:
        if self._kafka is None:
            raise TransportError("The embedded transport is not open. Await its open() first.")
        return self._kafka

    async def _running(self) -> str | None:
        """Return the address of a broker that is there already and answers."""
        address = None
        if self._directory is not None:
            with contextlib.suppress(OSError):  # starting one will say what is wrong with the directory
                _, address = read_owner(self._directory)
        elif self._broker_settings.port:
            address = f"{self._broker_settings.host}:{self._broker_settings.port}"
        return address if address is not None and await _answers(address) else None

    async def _started(self) -> str:
        if self._mode == "process":
            return await self._spawned()
        thread = BrokerThread(
            self._directory,
            self._broker_settings,
            self._storage_settings,
            checksum=crc32c,
            decompressors=decompressors(),
        )
        try:
            address = await asyncio.to_thread(thread.start)
        except LockedError:
            # somebody else was quicker
            return await self._awaited(None)
        except OSError as error:
            where = self._directory or f"{self._broker_settings.host}:{self._broker_settings.port}"
            raise ConfigurationError(f"The embedded broker cannot start at {where}: {error}.") from error
        self._thread = thread
        return address

    async def _spawned(self) -> str:
        child = BrokerProcess(self._directory, self._broker_settings, self._storage_settings, self._idle_exit)
        await asyncio.to_thread(child.start, sys.executable)
        return await self._awaited(child)

    async def _awaited(self, child: BrokerProcess | None) -> str:
        """Wait for the address of a broker that is starting, whoever started it."""
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if address := await self._running():
                return address
            if child is not None and (failure := child.failure()) is not None:
                raise ConfigurationError(f"The embedded broker did not start: {failure}")
            await asyncio.sleep(0.05)
        where = self._directory or f"{self._broker_settings.host}:{self._broker_settings.port}"
        raise ConnectionFailed(f"The embedded broker at {where} did not answer within {self._start_timeout:g} s.")


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


__all__ = ["EmbeddedTransport"]
