"""An in-process broker: topics, groups and faults without a socket. Tests and examples run on it.

`memory://name` is one broker per name and process, for all threads and loops. It has only what records need; the
embedded transport is the one with durability and Kafka's wire protocol.
"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from octopus.errors import ConfigurationError
from octopus.transports.memory.broker import Faults, MemoryBroker
from octopus.transports.memory.transport import MemoryTransport

_brokers: WeakValueDictionary[str, MemoryBroker] = WeakValueDictionary()


def memory_transport(name: str, settings: Mapping[str, Any]) -> MemoryTransport:
    """Return a transport to the broker of this name: the one that is in use, or a new one. No name is always new.

    Raises:
        ConfigurationError: A setting that `MemoryBroker` does not have.
    """
    broker = _brokers.get(name) if name else None
    if broker is None:
        try:
            broker = MemoryBroker(**settings)
        except TypeError as error:
            raise ConfigurationError(f"memory://{name} does not take these settings: {error}.") from error
        if name:
            _brokers[name] = broker
    return MemoryTransport(broker, address=f"memory://{name}")


__all__ = ["Faults", "MemoryBroker", "MemoryTransport", "memory_transport"]
