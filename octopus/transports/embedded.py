"""The embedded broker as a transport: found or started on this machine, then spoken to as to any Kafka.

The default when no cluster is named. By directory it is durable and shared: the first client starts it as a process of its
own, others join by the address in the directory's lock file, and it ends when no client has been connected for a while.
One that dies is started again by whichever client has to connect (`whereabouts.py`).
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.config import Settings
from octopus.errors import ConfigurationError, TransportError
from octopus.transports.base import Admin, Consumer, Producer, TransactionalProducer
from octopus.transports.kafka import KafkaTransport, consumer_class
from octopus.transports.whereabouts import Mode, Whereabouts


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
        place = Path(directory).expanduser().absolute() if directory is not None else None
        self._directory = place
        self._whereabouts = Whereabouts(
            place,
            # no client could find a process that keeps records in memory on a free port
            "thread" if place is None and not port else mode,
            BrokerSettings(host=host, port=int(port), default_partitions=int(partitions)),
            StorageSettings(
                durability=durability,
                topic_defaults={
                    "retention.ms": str(-1 if retention is None else int(float(retention) * 1000)),
                    "retention.bytes": str(-1 if retention_bytes is None else int(retention_bytes)),
                },
            ),
            float(idle_exit),
            float(start_timeout),
        )
        self._options = {"create_topics": True, "locate": self._whereabouts.again, **options}
        KafkaTransport.at("localhost", self._options)  # a wrong one is named here, not when the broker runs
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
        return self._whereabouts.address or f"embedded://{self._directory or ''}"

    async def open(self) -> None:
        """Join the broker that runs there, or start one.

        Raises:
            ConnectionFailed: It does not answer in time.
            ConfigurationError: Its directory or port cannot be used.
        """
        if self._whereabouts.address is None:
            await self._whereabouts.open()

    async def close(self) -> None:
        """End a broker in this program; one in a process of its own ends when no client is connected any more."""
        self._kafka = None
        await self._whereabouts.close()

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
        assert self._whereabouts.thread is not None, "only a broker in this program takes faults"
        return self._whereabouts.thread.faults

    def _opened(self) -> KafkaTransport:
        address = self._whereabouts.address
        if address is None:
            raise TransportError("The embedded transport is not open. Await its open() first.")
        if self._kafka is None or self._kafka.address != address:  # it was started again, on another port
            self._kafka = KafkaTransport.at(address, self._options)
        return self._kafka


__all__ = ["EmbeddedTransport"]
