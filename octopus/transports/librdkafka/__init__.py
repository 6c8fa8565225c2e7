"""A group member on librdkafka, for features that aiokafka lacks: incremental rebalances and the new group protocol (KIP-848).

An extra: `pip install "octopus-fabric[librdkafka]"`, chosen by `consumer.engine`. Only consumers have a second engine.
"""

from octopus.errors import ConfigurationError

try:
    import confluent_kafka as _confluent_kafka  # noqa: F401 - whether it is there
except ImportError as error:
    raise ConfigurationError(
        "The consumer engine librdkafka needs the package confluent-kafka, which is not installed. "
        'Install it with: pip install "octopus-fabric[librdkafka]"'
    ) from error

from octopus.transports.librdkafka.consumer import LibrdkafkaConsumer

__all__ = ["LibrdkafkaConsumer"]
