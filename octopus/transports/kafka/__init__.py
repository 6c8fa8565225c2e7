"""Apache Kafka and Amazon MSK, on aiokafka's engine; consumers also on librdkafka's, if that is asked for."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from octopus.errors import ConfigurationError
from octopus.transports.base import Consumer
from octopus.transports.kafka.admin import KafkaAdmin
from octopus.transports.kafka.consumer import KafkaConsumer
from octopus.transports.kafka.producer import KafkaProducer
from octopus.transports.kafka.settings import KafkaSettings, kafka_settings
from octopus.transports.kafka.transactions import KafkaTransactionalProducer

Engine = Literal["aiokafka", "librdkafka"]


class KafkaTransport:
    """A way to a Kafka cluster.

    Args:
        settings: Where it is and who we are to it.
    """

    name = "kafka"

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    @classmethod
    def at(cls, brokers: str, settings: Mapping[str, Any]) -> "KafkaTransport":
        """Return a transport for addresses and settings as they are given. Raises `ConfigurationError`."""
        return cls(kafka_settings(brokers, settings))

    @property
    def address(self) -> str:
        """The brokers."""
        return self.settings.brokers

    async def open(self) -> None:
        """Check that the cluster answers and takes our credentials."""
        admin = self.admin()
        await admin.start()
        await admin.stop()

    async def close(self) -> None:
        """Do nothing: consumers and producers are closed by who started them."""

    def consumer(
        self, group: str, topics: "Collection[str] | re.Pattern[str]", *, engine: Engine = "aiokafka", **options: Any
    ) -> Consumer:
        """Return a consumer; see `KafkaConsumer`, or `LibrdkafkaConsumer` for the other engine, for the options."""
        consumer: Consumer = _checked(consumer_class(engine), options, self.settings, group, topics)
        return consumer

    def producer(self, **options: Any) -> KafkaProducer:
        """Return a producer; see `KafkaProducer` for the options."""
        producer: KafkaProducer = _checked(KafkaProducer, options, self.settings)
        return producer

    def transactional_producer(self, transactional_id: str, **options: Any) -> KafkaTransactionalProducer:
        """Return a producer that shares its fate with the offsets it commits."""
        return KafkaTransactionalProducer(self.producer(transactional_id=transactional_id, **options))

    def admin(self) -> KafkaAdmin:
        """Return an admin client."""
        return KafkaAdmin(self.settings)


def consumer_class(engine: Engine) -> Any:
    """Return the consumer of an engine. Raises `ConfigurationError` when the package is not installed that it needs."""
    if engine == "librdkafka":
        from octopus.transports.librdkafka import LibrdkafkaConsumer

        return LibrdkafkaConsumer
    return KafkaConsumer


def _checked(kind: Any, options: Mapping[str, Any], *arguments: Any) -> Any:
    try:
        return kind(*arguments, **options)
    except TypeError as error:
        raise ConfigurationError(f"{kind.__name__} does not take these options: {error}.") from error


__all__ = ["KafkaAdmin", "KafkaConsumer", "KafkaProducer", "KafkaSettings", "KafkaTransport", "consumer_class"]
