"""Ways to a broker: in memory, embedded, Kafka. One function opens any of them by address."""

import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from octopus.errors import ConfigurationError
from octopus.transports.base import Transport

SCHEMES = ("memory", "embedded", "kafka")


def open_transport(brokers: str, **settings: Any) -> Transport:
    """Return the transport for an address. Nothing connects yet.

    Args:
        brokers: `memory://name`, `embedded://` or `embedded:///directory`, `kafka://host:port,host:port` or just
            `host:port,host:port`. A query (`?security_protocol=SASL_SSL`) gives settings as text.
        settings: Passed to the transport: see `MemoryBroker`, `EmbeddedTransport`, `KafkaSettings`.

    Raises:
        ConfigurationError: Unknown scheme or setting.
    """
    scheme, separator, rest = brokers.strip().partition("://")
    if not separator:
        scheme, rest = "kafka", scheme
    location, _, query = rest.partition("?")
    settings = {**dict(parse_qsl(query)), **settings}
    match scheme:
        case "memory":
            from octopus.transports.memory import memory_transport

            return memory_transport(location, settings)
        case "embedded":
            from octopus.transports.embedded import EmbeddedTransport

            return _configured(EmbeddedTransport, unquote(urlsplit(f"//{location}").path or location), settings)
        case "kafka":
            from octopus.transports.kafka import KafkaTransport

            return KafkaTransport.at(location, settings)
        case _:
            close = difflib.get_close_matches(scheme, SCHEMES, 1)
            hint = f" Did you mean {close[0]}://{rest}?" if close else f" Known are {', '.join(SCHEMES)} and host:port."
            raise ConfigurationError(f"There is no transport for {brokers!r}.{hint}")


def _configured(kind: Any, location: str, settings: Mapping[str, Any]) -> Transport:
    try:
        transport: Transport = kind(location or None, **settings)
    except TypeError as error:
        raise ConfigurationError(f"{kind.__name__} does not take these settings: {error}.") from error
    return transport


__all__ = ["open_transport"]
