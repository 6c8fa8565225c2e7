"""What the parts of a cluster compute, in seconds of CPU time."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cost:
    """CPU seconds of one kind of work.

    Attributes:
        request: Each request.
        record: Each record.
        byte: Each byte of the values.
    """

    request: float = 0.0
    record: float = 0.0
    byte: float = 0.0

    def of(self, records: float, size: float, requests: float = 1.0) -> float:
        """Return the seconds for so many records of `size` bytes together, in so many requests."""
        return self.request * requests + self.record * records + self.byte * size


@dataclasses.dataclass(frozen=True)
class Client:
    """How a producer and a consumer of one make behave, and what they cost.

    Attributes:
        produce: Of the producer.
        consume: Of the consumer, handler included.
        batch_bytes: Most of one batch of one partition.
        batch_records: The same, as a count.
        linger: Seconds for which a batch that is not full may wait for company.
        in_flight: Produce requests at once: to one partition, or with `joint` to one broker.
        joint: Whether one request carries batches of all partitions that a broker leads.
        queue_records: What may be handed over and not yet acknowledged.
        chunk_records: Handed over at once by a caller that then waits until all of it is acknowledged; 0 when it does not wait.
        chunk_bytes: The same, in bytes.
    """

    produce: Cost = Cost()
    consume: Cost = Cost()
    batch_bytes: int = 1_000_000
    batch_records: int = 10_000
    linger: float = 0.005
    in_flight: int = 5
    joint: bool = False
    queue_records: int = 50_000
    chunk_records: int = 0
    chunk_bytes: int = 8 * 2**20


@dataclasses.dataclass(frozen=True)
class Broker:
    """What a broker costs.

    Attributes:
        append: For what producers send to a leader.
        copy: For each further copy, half of it at the leader and half at the follower; a request is a follower's fetch.
        fetch: For what consumers read.
        idle: CPU seconds in a second with nothing to do.
    """

    append: Cost = Cost()
    copy: Cost = Cost()
    fetch: Cost = Cost()
    idle: float = 0.0
