"""Consumers on the second engine, for the conformance tests: a transport whose consumers are librdkafka's."""

from collections.abc import Mapping
from typing import Any

import pytest

from octopus.transports.base import Consumer, Transport

COOPERATIVE = {"engine": "librdkafka", "assignor": "cooperative-sticky"}
EAGER = {"engine": "librdkafka", "assignor": "range"}
KIP_848 = {"engine": "librdkafka", "group_protocol": "consumer"}

ENGINES: Mapping[str, Mapping[str, Any]] = {"cooperative": COOPERATIVE, "eager": EAGER, "kip-848": KIP_848}

KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
TRANSPORTS = ["memory", "embedded", KAFKA]

ON_EMBEDDED = ["embedded librdkafka cooperative", "embedded librdkafka eager"]
ON_KAFKA = [
    pytest.param(f"kafka librdkafka {engine}", marks=pytest.mark.kafka)
    for engine in ("cooperative", "eager", "kip-848")
]
KIP_848_ON_KAFKA = ON_KAFKA[-1]
LIBRDKAFKA = [*ON_EMBEDDED, *ON_KAFKA]
"""The embedded broker has no KIP-848."""

CONSUMERS = [*TRANSPORTS, *LIBRDKAFKA]
"""Every consumer there is, on every broker that takes it."""


class OtherEngine:
    """A transport but for its consumers.

    Args:
        transport: Does everything else.
        engine: Options for its consumers.
    """

    def __init__(self, transport: Transport, engine: str) -> None:
        self.transport = transport
        self.engine = ENGINES[engine]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def consumer(self, group: str, topics: Any, **options: Any) -> Consumer:
        return self.transport.consumer(group, topics, **{**self.engine, **options})


def is_incremental(transport: Transport) -> bool:
    """Tell whether a rebalance names what changes, instead of everything."""
    return isinstance(transport, OtherEngine) and transport.engine is not EAGER
