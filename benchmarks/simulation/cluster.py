"""A cluster under load: producers → links → leaders → followers, and leaders → links → consumers.

Batches, requests and fetches are the events, not records: a million records a second are a few thousand of them.
"""

import bisect
import math
import random
from collections import deque

from benchmarks.simulation import consumer, producer
from benchmarks.simulation.machine import Machine, transfer
from benchmarks.simulation.scenario import Outcome, Scenario
from benchmarks.simulation.timeline import Process, Signal, Station, Timeline

REPLICA_FETCH_BYTES = 2**20
"""Kafka's `replica.fetch.max.bytes`, of one partition."""

PAGE_CACHE = 0.5
"""Brokers acknowledge before the disk has it; until what is not written takes it so long to write, seconds."""

TICK = 0.001
"""How often cores do what is none of our business, seconds."""

ENDLESS = 10**15
"""End of a partition that holds more than can be read."""


def simulate(scenario: Scenario, seconds: float, warm_up: float | None = None) -> Outcome:
    """Simulate; the same scenario has the same outcome each time.

    Args:
        scenario: What.
        seconds: How long it is measured.
        warm_up: How long it runs before; half as long by default.
    """
    cluster = Cluster(scenario)
    cluster.start()
    cluster.timeline.run(seconds / 2 if warm_up is None else warm_up)
    cluster.reset()
    cluster.timeline.run(cluster.timeline.now + seconds)
    return cluster.outcome()


class Partition:
    """A log: how far it is written, copied and visible, and what waits for it.

    Args:
        leader: Number of its broker.
        followers: Numbers of the others.
        end: Where it ends in the beginning.
    """

    def __init__(self, leader: int, followers: list[int], end: int) -> None:
        self.leader = leader
        self.end = end
        self.visible = end
        self.copied = dict.fromkeys(followers, end)
        self.ends: list[int] = []
        self.shown_at: list[float] = []
        """For each time that records became visible: up to where, and when."""
        self.waiting: deque[tuple[int, Signal]] = deque()
        """Produce requests that wait for all copies, by the offset they wait for."""

    def when_shown(self, offset: int) -> float:
        """Return when a record became visible."""
        return self.shown_at[bisect.bisect_right(self.ends, offset)]


def _followers(number: int, brokers: int, copies: int) -> list[int]:
    """Return where the further copies of a partition are: spread as Kafka spreads them, each leader's over all others."""
    leader, shift = number % brokers, number // brokers
    return [(leader + 1 + (shift + copy) % (brokers - 1)) % brokers for copy in range(copies - 1)]


class Cluster:
    """Everything that one scenario consists of.

    Args:
        scenario: What is simulated.

    Attributes:
        brokers: Their machines; with `one_machine` they share its cores.
        disks: One for each broker.
        led: The partitions that each broker leads.
        written: One for each broker, fired when something is appended there.
        shown: One for each broker, fired when consumers may read more there.
        counts: See `Outcome`.
        requests: Sent since the beginning.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.timeline = timeline = Timeline()
        self.draw = random.Random(scenario.seed)
        numbers = range(scenario.brokers)
        shared = Station(timeline, scenario.broker_cores)
        bandwidth = math.inf if scenario.one_machine else scenario.bandwidth
        self.brokers = [
            Machine(timeline, shared if scenario.one_machine else Station(timeline, scenario.broker_cores), bandwidth)
            for _ in numbers
        ]
        self.disks = [Station(timeline, speed=scenario.disk) for _ in numbers]
        self.clients: list[Machine] = []
        self._client_cores = Station(timeline, scenario.client_cores) if scenario.client_cores else None
        self.partitions = [
            Partition(
                number % scenario.brokers,
                _followers(number, scenario.brokers, scenario.copies),
                ENDLESS if scenario.backlog else 0,
            )
            for number in range(scenario.partitions)
        ]
        self.led = [
            [one for one in range(scenario.partitions) if one % scenario.brokers == broker] for broker in numbers
        ]
        self.written = [Signal(timeline) for _ in numbers]
        self.shown = [Signal(timeline) for _ in numbers]
        self.counts = dict.fromkeys(("handed", "stored", "acknowledged", "fetched", "handled"), 0)
        self.requests = {"produce": 0, "fetch": 0}
        self.acknowledged_after: list[float] = []
        self.handled_after: list[float] = []
        self._since = 0.0
        self._before = self._totals()

    # life

    def start(self) -> None:
        """Let everybody begin."""
        scenario = self.scenario
        for number in range(scenario.producers):
            producer.start(self, number)
        for share in scenario.groups:
            mine = list(range(max(1, round(share * scenario.partitions))))
            for number in range(scenario.consumers):
                consumer.start(self, mine[number :: scenario.consumers])
        for leader in range(scenario.brokers):
            for follower in range(scenario.brokers):
                mine = [one for one in self.led[leader] if follower in self.partitions[one].copied]
                for fetcher in range(scenario.replica_fetchers):
                    if shared := mine[fetcher :: scenario.replica_fetchers]:
                        self.timeline.start(self._follow(leader, follower, shared))
            self._occupy(self.brokers[leader].cores, scenario.broker.idle)
        stations = self._stations()
        for station in stations["broker cores"]:
            self._occupy(station, scenario.broker_cores_taken * scenario.broker_cores)
        for station in stations["client cores"]:
            self._occupy(station, scenario.client_cores_taken * (scenario.client_cores or 1))

    def client(self) -> Machine:
        """Return a machine for a client."""
        cores = self._client_cores or Station(self.timeline)
        self.clients.append(Machine(self.timeline, cores, self.scenario.bandwidth))
        return self.clients[-1]

    def reset(self) -> None:
        """Begin to measure."""
        self._since = self.timeline.now
        self._before = self._totals()
        self.acknowledged_after.clear()
        self.handled_after.clear()
        for stations in self._stations().values():
            for station in stations:
                station.reset()

    def outcome(self) -> Outcome:
        """Return what was measured since `reset`."""
        took = self.timeline.now - self._since
        rates = [(now - before) / took for now, before in zip(self._totals(), self._before, strict=True)]
        produced, consumed, produce_requests, fetch_requests = rates
        busy = {
            name: sum(station.utilisation for station in stations) / len(stations)
            for name, stations in self._stations().items()
            if stations
        }
        return Outcome(
            produced=produced,
            consumed=consumed,
            busy=busy,
            acknowledged_after=sorted(self.acknowledged_after),
            handled_after=sorted(self.handled_after),
            produce_requests=produce_requests,
            fetch_requests=fetch_requests,
            counts=self.counts,
        )

    def _totals(self) -> tuple[int, int, int, int]:
        return self.counts["stored"], self.counts["handled"], self.requests["produce"], self.requests["fetch"]

    def _stations(self) -> dict[str, list[Station]]:
        return {
            "client cores": list({id(one.cores): one.cores for one in self.clients}.values()),
            "broker cores": list({id(one.cores): one.cores for one in self.brokers}.values()),
            "broker links in": [one.inward for one in self.brokers],
            "broker links out": [one.outward for one in self.brokers],
            "client links": [link for one in self.clients for link in (one.inward, one.outward)],
            "disks": self.disks,
        }

    # logs

    def append(self, number: int, count: int) -> tuple[Partition, int, Signal] | None:
        """Append at the leader; return what to wait for, and how far, when all copies are asked for."""
        partition = self.partitions[number]
        partition.end += count
        self.counts["stored"] += count
        self.written[partition.leader].fire()
        if not partition.copied:
            self._show(partition, partition.end)
            return None
        if self.scenario.acks != "all":
            return None
        signal = Signal(self.timeline)
        partition.waiting.append((partition.end, signal))
        return partition, partition.end, signal

    def write(self, broker: int, size: float) -> float:
        """Give a broker's disk bytes to write; return how long to wait for room in memory, where they are kept till then."""
        return max(0.0, self.disks[broker].serve(size) - PAGE_CACHE)

    def _show(self, partition: Partition, end: int) -> None:
        """Let consumers read up to an offset, and acknowledge up to there."""
        partition.visible = end
        if self.scenario.groups:
            partition.ends.append(end)
            partition.shown_at.append(self.timeline.now)
        while partition.waiting and partition.waiting[0][0] <= end:
            partition.waiting.popleft()[1].fire()
        self.shown[partition.leader].fire()

    # brokers

    def _follow(self, leader: int, follower: int, numbers: list[int]) -> Process:
        """Copy what another broker leads: one fetch after the other, each telling how far the last one went."""
        scenario = self.scenario
        source, target = self.brokers[leader], self.brokers[follower]
        mine = [self.partitions[one] for one in numbers]
        most = max(1, REPLICA_FETCH_BYTES // scenario.event_bytes)
        positions = [partition.end for partition in mine]
        while True:
            yield scenario.broker_round_trip / 2
            for partition, position in zip(mine, positions, strict=True):
                if position > partition.copied[follower]:
                    self._note_copied(partition, follower, position)
            wanted: list[int] = []
            while not wanted:
                wanted = [one for one, partition in enumerate(mine) if partition.end > positions[one]]
                if not wanted:
                    yield self.written[leader]
            records = 0
            for one in wanted:
                end = min(mine[one].end, positions[one] + most)
                records += end - positions[one]
                positions[one] = end
            size = records * scenario.event_bytes
            half = scenario.broker.copy.of(records, size) / 2
            yield source.cores.serve(half)
            yield transfer(source, target, size) + scenario.broker_round_trip / 2
            yield target.cores.serve(half)
            yield self.write(follower, size)

    def _note_copied(self, partition: Partition, follower: int, position: int) -> None:
        partition.copied[follower] = position
        everywhere = min(partition.copied.values())
        if everywhere > partition.visible:
            self._show(partition, everywhere)

    def _occupy(self, cores: Station, amount: float) -> None:
        """Keep cores busy with something else, so many of them in the mean."""

        def forever() -> Process:
            while True:
                cores.serve(amount * TICK)
                yield TICK

        if amount:
            self.timeline.start(forever())
