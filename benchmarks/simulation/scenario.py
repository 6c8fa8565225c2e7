"""What is simulated, and what came of it."""

import dataclasses
import math
from collections.abc import Sequence

from benchmarks.simulation.costs import Broker, Client


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is simulated. Times in seconds, sizes in bytes, bandwidths in bytes a second.

    Attributes:
        client: Make of producers and consumers.
        broker: What brokers cost.
        event_bytes: Size of each value.
        partitions: Of the one topic, led by the brokers in turn.
        copies: Of each partition.
        acks: `0`, `1` or `all`.
        brokers: How many.
        replica_fetchers: Kafka's `num.replica.fetchers`: how many fetches of one broker from another go on at once.
        broker_cores: Of each broker; or of all together with `one_machine`.
        one_machine: Whether all brokers share one machine's cores.
        producers: How many.
        groups: For each consumer group, the part of the partitions that it reads.
        consumers: In each group.
        client_cores: For all clients together; None gives each its own.
        broker_cores_taken: The part of the brokers' cores that other programs use.
        client_cores_taken: The part of the clients' cores that other programs use.
        rate: Events a second that each producer is offered; None for as fast as it can.
        regular: Whether offered events come at equal distances; else at random.
        backlog: Whether the topic holds more than can be read; else consumers read what is produced.
        round_trip: Between clients and brokers.
        broker_round_trip: Between brokers.
        bandwidth: Of each machine's link, in each direction.
        disk: Of each broker's disk, writing.
        fetch_partition_bytes: Most of one fetch for one partition.
        fetch_bytes: Most of one fetch.
        parcel: Records that a producer's program hands over at once; what is offered slowly comes one by one.
        seed: Of what is random.
    """

    client: Client
    broker: Broker
    event_bytes: int = 1024
    partitions: int = 4
    copies: int = 1
    acks: str = "all"
    brokers: int = 1
    replica_fetchers: int = 1
    broker_cores: int = 1
    one_machine: bool = False
    producers: int = 1
    groups: tuple[float, ...] = ()
    consumers: int = 1
    client_cores: int | None = None
    broker_cores_taken: float = 0.0
    client_cores_taken: float = 0.0
    rate: float | None = None
    regular: bool = True
    backlog: bool = False
    round_trip: float = 0.0
    broker_round_trip: float = 0.0
    bandwidth: float = math.inf
    disk: float = math.inf
    fetch_partition_bytes: int = 2**20
    fetch_bytes: int = 50 * 2**20
    parcel: int = 100
    seed: int = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it, in the time that was measured.

    Attributes:
        produced: Records a second that leaders stored.
        consumed: Records a second that consumers handled, all groups together.
        busy: Resource → part of it that was busy; of several of a kind, the mean.
        acknowledged_after: Seconds from handing over (or being due) to the acknowledgement, sorted; one for each batch.
        handled_after: Seconds from being stored to being handled, sorted; one for each turn of a consumer.
        produce_requests: A second.
        fetch_requests: A second, of consumers.
        counts: Records since the beginning: `handed`, `stored`, `acknowledged`, `fetched`, `handled`.
    """

    produced: float
    consumed: float
    busy: dict[str, float]
    acknowledged_after: list[float]
    handled_after: list[float]
    produce_requests: float
    fetch_requests: float
    counts: dict[str, int]


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return that percentile of a sorted list; not a number for an empty one."""
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else math.nan
