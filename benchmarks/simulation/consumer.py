"""A consumer: a fetch at a time from each broker, and a handler that works through what they brought."""

from collections import deque
from typing import TYPE_CHECKING

from benchmarks.simulation.machine import transfer
from benchmarks.simulation.timeline import Process, Signal

if TYPE_CHECKING:
    from benchmarks.simulation.cluster import Cluster

AT_ONCE = 1000
"""Records that the handler works through without looking up."""


class _Consumer:
    def __init__(self, cluster: "Cluster", mine: list[int]) -> None:
        self.scenario = cluster.scenario
        self.cluster = cluster
        self.timeline = cluster.timeline
        self.machine = cluster.client()
        self.position = dict.fromkeys(mine, 0)
        self.unread = dict.fromkeys(mine, 0)
        self.fetched: deque[tuple[int, int, int]] = deque()
        """Partition, first offset, end."""
        self.arrived, self.taken = Signal(self.timeline), Signal(self.timeline)
        self.timeline.start(self._handle_forever())
        for broker, led in enumerate(cluster.led):
            if wanted := [one for one in led if one in self.position]:
                self.timeline.start(self._fetch_forever(broker, wanted))

    def _fetch_forever(self, leader: int, mine: list[int]) -> Process:
        """Fetch from one broker, for those partitions of which no more than one fetch is unread."""
        scenario, partitions = self.scenario, self.cluster.partitions
        broker, shown = self.cluster.brokers[leader], self.cluster.shown[leader]
        most = max(1, scenario.fetch_partition_bytes // scenario.event_bytes)
        turn = 0
        while True:
            asked = [one for one in mine if self.unread[one] <= most]
            if not asked:
                yield self.taken
                continue
            yield self.machine.cores.serve(scenario.client.consume.request)
            yield scenario.round_trip / 2
            self.cluster.requests["fetch"] += 1
            while all(partitions[one].visible <= self.position[one] for one in asked):
                yield shown
            turn = (turn + 1) % len(asked)  # so that none is always the last
            brought = self._take(asked[turn:] + asked[:turn], most)
            records = sum(end - first for _, first, end in brought)
            size = records * scenario.event_bytes
            yield broker.cores.serve(scenario.broker.fetch.of(records, size))
            yield transfer(broker, self.machine, size) + scenario.round_trip / 2
            for one, first, end in brought:
                self.unread[one] += end - first
            self.cluster.counts["fetched"] += records
            self.fetched.extend(brought)
            self.arrived.fire()

    def _take(self, asked: list[int], most: int) -> list[tuple[int, int, int]]:
        """Read from the logs, as much as one fetch may hold; what is read is not read again."""
        room = max(1, self.scenario.fetch_bytes // self.scenario.event_bytes)
        brought = []
        for one in asked:
            first = self.position[one]
            if (count := min(self.cluster.partitions[one].visible - first, most, room)) > 0:
                brought.append((one, first, first + count))
                self.position[one] += count
                room -= count
        return brought

    def _handle_forever(self) -> Process:
        scenario, cluster = self.scenario, self.cluster
        while True:
            if not self.fetched:
                yield self.arrived
                continue
            partition, start, end = self.fetched.popleft()
            for first in range(start, end, AT_ONCE):
                count = min(AT_ONCE, end - first)
                yield self.machine.cores.serve(scenario.client.consume.of(count, count * scenario.event_bytes, 0))
                self.unread[partition] -= count
                cluster.counts["handled"] += count
                if not scenario.backlog:
                    cluster.handled_after.append(self.timeline.now - cluster.partitions[partition].when_shown(first))
                self.taken.fire()


def start(cluster: "Cluster", mine: list[int]) -> None:
    """Add a consumer of some partitions to a cluster; it needs at least one."""
    if mine:
        _Consumer(cluster, mine)
