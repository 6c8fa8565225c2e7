"""The cost of one event: its share of a request, itself, its bytes. CPU seconds."""

from benchmarks.simulation.costs import Broker, Client


def batch_of(client: Client, bytes_: int) -> int:
    """Return how many events of a size a full batch holds, no more than programs hand over at once."""
    return max(1, min(client.batch_records, client.batch_bytes // bytes_, 1000))


def produce_seconds(client: Client, bytes_: int) -> float:
    """Return what a producer computes for an event."""
    return client.produce.of(1, bytes_, 1 / batch_of(client, bytes_))


def consume_seconds(client: Client, bytes_: int) -> float:
    """Return what a consumer computes for an event, out of fetches of 1 MiB."""
    return client.consume.of(1, bytes_, 1 / max(1, 2**20 // bytes_))


def append_seconds(broker: Broker, bytes_: int, copies: int) -> float:
    """Return what brokers compute to store an event with all its copies, in batches of 64 KiB."""
    requests = 1 / max(1, min(1000, 64 * 1024 // bytes_))
    return broker.append.of(1, bytes_, requests) + (copies - 1) * broker.copy.of(1, bytes_, requests)


def fetch_seconds(broker: Broker, bytes_: int) -> float:
    """Return what a broker computes to give out an event, in fetches of 1 MiB."""
    return broker.fetch.of(1, bytes_, 1 / max(1, 2**20 // bytes_))
