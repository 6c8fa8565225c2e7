"""A producer: a program that hands records over, queues by partition, and requests."""

import dataclasses
from collections import deque
from typing import TYPE_CHECKING

from benchmarks.simulation.machine import transfer
from benchmarks.simulation.timeline import Process, Signal

if TYPE_CHECKING:
    from benchmarks.simulation.cluster import Cluster

ONE_BY_ONE = 10_000
"""Up to so many events a second are handed over one by one; more of them in parcels."""


@dataclasses.dataclass
class Batch:
    """Records of one partition.

    Attributes:
        partition: Which.
        count: How many records.
        born: When the first of them was handed over, or due.
    """

    partition: int
    count: int
    born: float


class _Producer:
    def __init__(self, cluster: "Cluster") -> None:
        self.scenario = cluster.scenario
        self.client = cluster.scenario.client
        self.cluster = cluster
        self.timeline = cluster.timeline
        self.machine = cluster.client()
        self.queues: list[deque[Batch]] = [deque() for _ in cluster.partitions]
        self.outstanding = 0
        self.room = Signal(self.timeline)
        groups = cluster.led if self.client.joint else [[one] for one in range(self.scenario.partitions)]
        self.more = [Signal(self.timeline) for _ in cluster.partitions]
        for group in filter(None, groups):
            more = Signal(self.timeline)
            for partition in group:
                self.more[partition] = more
            self.timeline.start(self._send_forever(group, more))

    def hand_over(self, number: int) -> Process:
        """Be the program: as many records as the queue takes, or as many as it is offered."""
        scenario, client, rate = self.scenario, self.client, self.scenario.rate
        chunk = client.chunk_records if rate is None else 0
        parcel = 1 if rate is not None and rate <= ONE_BY_ONE else scenario.parcel
        if chunk:
            # What is handed over in chunks is packed there and then: a batch is full, or holds the rest.
            chunk = max(1, min(chunk, client.chunk_bytes // scenario.event_bytes))
            parcel = max(1, min(chunk, client.batch_records, client.batch_bytes // scenario.event_bytes))
        partition = number % scenario.partitions
        interval = parcel / rate if rate else 0.001
        due = self.cluster.draw.random() * interval
        yield due
        in_chunk = 0
        while True:
            if rate is not None:
                due += interval if scenario.regular else self.cluster.draw.expovariate(1 / interval)
                if due > self.timeline.now:
                    yield due - self.timeline.now
            count = min(parcel, chunk - in_chunk) if chunk else parcel
            while self.outstanding + count > client.queue_records:
                yield self.room
            born = self.timeline.now if rate is None else due
            self.outstanding += count
            self.cluster.counts["handed"] += count
            yield self.machine.cores.serve(client.produce.of(count, count * scenario.event_bytes, 0))
            self._enqueue(partition, count, born)
            partition = (partition + 1) % scenario.partitions
            in_chunk += count
            if chunk and in_chunk >= chunk:
                in_chunk = 0
                while self.outstanding:
                    yield self.room

    def _enqueue(self, partition: int, count: int, born: float) -> None:
        queue = self.queues[partition]
        if queue and self._fits(queue[-1].count + count):
            queue[-1].count += count
        else:
            queue.append(Batch(partition, count, born))
        self.more[partition].fire()

    def _fits(self, count: int) -> bool:
        return count <= self.client.batch_records and count * self.scenario.event_bytes <= self.client.batch_bytes

    def _send_forever(self, group: list[int], more: Signal) -> Process:
        """Send a batch of each partition of the group that has one, for as long as not too much is under way."""
        under_way = _UnderWay(Signal(self.timeline))
        queues = [self.queues[one] for one in group]
        while True:
            ready = list(filter(None, queues))
            if not ready:
                yield more
                continue
            if under_way.count >= self.client.in_flight:
                yield under_way.fewer
                continue
            if (wait := self._lingering(ready)) > 0:
                yield wait
            batches = [queue.popleft() for queue in ready]
            under_way.count += 1
            yield self.machine.cores.serve(self.client.produce.request)
            self.timeline.start(self._request(batches, under_way))

    def _lingering(self, ready: list[deque[Batch]]) -> float:
        """Return how long to wait for company: not at all when a batch is full."""
        if not self.client.linger or any(len(queue) > 1 for queue in ready):
            return 0.0
        return min(queue[0].born for queue in ready) + self.client.linger - self.timeline.now

    def _request(self, batches: list[Batch], under_way: "_UnderWay") -> Process:
        scenario, cluster = self.scenario, self.cluster
        leader = cluster.partitions[batches[0].partition].leader
        broker = cluster.brokers[leader]
        records = sum(batch.count for batch in batches)
        size = records * scenario.event_bytes
        cluster.requests["produce"] += 1
        if scenario.acks == "0":
            self._acknowledge(batches)
        yield transfer(self.machine, broker, size) + scenario.round_trip / 2
        yield broker.cores.serve(scenario.broker.append.of(records, size))
        yield cluster.write(leader, size)
        waits = [cluster.append(batch.partition, batch.count) for batch in batches]
        if scenario.acks == "0":
            under_way.end()  # buffers of sockets hold a few requests, and then the sender waits
            return
        for partition, end, copied in filter(None, waits):
            if partition.visible < end:
                yield copied
        yield scenario.round_trip / 2
        under_way.end()
        self._acknowledge(batches)

    def _acknowledge(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.outstanding -= batch.count
            self.cluster.counts["acknowledged"] += batch.count
            self.cluster.acknowledged_after.append(self.timeline.now - batch.born)
        self.room.fire()


@dataclasses.dataclass
class _UnderWay:
    fewer: Signal
    count: int = 0

    def end(self) -> None:
        self.count -= 1
        self.fewer.fire()


def start(cluster: "Cluster", number: int) -> None:
    """Add a producer to a cluster."""
    cluster.timeline.start(_Producer(cluster).hand_over(number))
