"""The simulation agrees with what queueing theory knows, and with arithmetic where one resource decides."""

import dataclasses
import math
import random
import statistics

import pytest

from benchmarks.simulation.cluster import simulate
from benchmarks.simulation.costs import Broker, Client, Cost
from benchmarks.simulation.scenario import Outcome, Scenario, percentile
from benchmarks.simulation.timeline import Process, Signal, Station, Timeline

KILOBYTE = 1000

FREE = Client(linger=0.0)
"""A client that costs nothing."""

SLOW_BROKER = Broker(append=Cost(record=10e-6), fetch=Cost(record=4e-6))
"""100,000 events in, 250,000 out."""


def waits(load: float, service: "list[float]") -> list[float]:
    """Send customers at random times to one server; return how long each waited. One service takes 1 s in the mean."""
    timeline, draw, found = Timeline(), random.Random(5), list[float]()
    station = Station(timeline)

    def arriving() -> Process:
        for seconds in service:
            yield draw.expovariate(load)
            found.append(station.serve(seconds) - seconds)

    timeline.start(arriving())
    timeline.run(math.inf)
    return found


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_wait_for_a_server_of_constant_speed_is_that_of_m_d_1(load: float) -> None:
    found = statistics.fmean(waits(load, [1.0] * 20_000))
    assert found == pytest.approx(load / (2 * (1 - load)), rel=0.12)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_wait_for_a_server_of_random_speed_is_that_of_m_m_1(load: float) -> None:
    draw = random.Random(3)
    found = statistics.fmean(waits(load, [draw.expovariate(1.0) for _ in range(30_000)]))
    assert found == pytest.approx(load / (1 - load), rel=0.15)


def test_a_station_with_two_servers_does_two_things_at_once() -> None:
    station = Station(Timeline(), servers=2)
    assert [station.serve(1.0) for _ in range(4)] == [1.0, 1.0, 2.0, 2.0]


def test_a_station_counts_only_what_falls_into_the_time_that_is_measured() -> None:
    timeline = Timeline()
    station = Station(timeline)
    station.serve(3.0)
    timeline.run(1.0)
    station.reset()
    timeline.run(2.0)
    assert station.utilisation == 1.0
    timeline.run(5.0)
    assert station.utilisation == 0.5


def test_a_signal_wakes_all_that_wait_and_nobody_later() -> None:
    timeline, woken = Timeline(), list[float]()
    signal = Signal(timeline)

    def waiting() -> Process:
        while True:
            yield signal
            woken.append(timeline.now)

    def firing() -> Process:
        yield 2.0
        signal.fire()

    timeline.start(waiting())
    timeline.start(waiting())
    timeline.start(firing())
    timeline.run(9.0)
    assert woken == [2.0, 2.0]


def test_events_at_random_times_wait_for_a_broker_as_in_m_d_1() -> None:
    one_by_one = Client(linger=0.0, batch_records=1, in_flight=10**6, queue_records=10**9)
    load, service = 0.7, 1e-3
    scenario = Scenario(
        one_by_one, Broker(append=Cost(request=service)), partitions=1, acks="1", rate=load / service, regular=False
    )
    outcome = simulate(scenario, 15.0)
    wait = statistics.fmean(outcome.acknowledged_after) - service
    assert wait == pytest.approx(service * load / (2 * (1 - load)), rel=0.15)
    assert outcome.busy["broker cores"] == pytest.approx(load, rel=0.03)


def test_throughput_is_that_of_the_slowest_core() -> None:
    broker_first = simulate(Scenario(FREE, SLOW_BROKER, producers=2, acks="1"), 0.5)
    assert broker_first.produced == pytest.approx(100_000, rel=0.02)
    assert broker_first.busy["broker cores"] == pytest.approx(1.0, abs=0.01)
    slow_client = dataclasses.replace(FREE, produce=Cost(record=50e-6))
    client_first = simulate(Scenario(slow_client, SLOW_BROKER, producers=2, acks="1"), 0.5)
    assert client_first.produced == pytest.approx(40_000, rel=0.02)
    assert client_first.busy["broker cores"] == pytest.approx(0.4, abs=0.02)


def test_consumers_are_as_fast_as_their_cores_until_the_broker_is() -> None:
    worker = dataclasses.replace(FREE, consume=Cost(record=10e-6))
    found = [
        simulate(
            Scenario(worker, SLOW_BROKER, producers=0, groups=(1.0,), consumers=count, partitions=8, backlog=True), 0.5
        ).consumed
        for count in (1, 2, 4)
    ]
    assert found == pytest.approx([100_000, 200_000, 250_000], rel=0.03)


def test_a_worker_without_a_partition_does_nothing() -> None:
    worker = dataclasses.replace(FREE, consume=Cost(record=10e-6))
    scenario = Scenario(worker, Broker(), producers=0, groups=(1.0,), consumers=8, partitions=2, backlog=True)
    assert simulate(scenario, 0.5).consumed == pytest.approx(200_000, rel=0.02)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_the_utilisation_law_holds(acks: str) -> None:
    """Busy = throughput x service time, whatever waits for what."""
    append, copy = Cost(20e-6, 1e-6, 1e-9), Cost(0.0, 0.1e-6, 2e-9)
    client = Client(produce=Cost(40e-6, 2e-6, 0.5e-9))
    cluster = {"copies": 3, "brokers": 3, "broker_cores": 4, "partitions": 6}
    outcome = simulate(Scenario(client, Broker(append, copy), producers=2, acks=acks, **cluster), 1.0)  # type: ignore[arg-type]
    requests = outcome.produce_requests
    assert outcome.busy["client cores"] * 2 == pytest.approx(
        client.produce.of(outcome.produced, outcome.produced * 1024, requests), rel=0.03
    )
    assert outcome.busy["broker cores"] * 12 == pytest.approx(
        append.of(outcome.produced, outcome.produced * 1024, requests)
        + 2 * copy.of(outcome.produced, outcome.produced * 1024),
        rel=0.03,
    )


def test_a_link_carries_its_bandwidth_and_copies_share_it() -> None:
    common = {"event_bytes": KILOBYTE, "bandwidth": 50e6, "producers": 4, "partitions": 12, "brokers": 3}
    alone = simulate(Scenario(FREE, Broker(), copies=1, **common), 4.0)  # type: ignore[arg-type]
    assert alone.produced == pytest.approx(150_000, rel=0.05), "three links into brokers"
    copied = simulate(Scenario(FREE, Broker(), copies=3, **common), 4.0)  # type: ignore[arg-type]
    assert copied.produced == pytest.approx(50_000, rel=0.05), "each byte goes into all three"
    assert copied.busy["broker links in"] > 0.95


def test_a_disk_writes_each_copy() -> None:
    scenario = Scenario(FREE, Broker(), event_bytes=KILOBYTE, disk=30e6, producers=2, partitions=6, copies=2, brokers=2)
    assert simulate(scenario, 4.0).produced == pytest.approx(30_000, rel=0.05)


def test_a_round_trip_limits_a_producer_to_what_is_under_way() -> None:
    careful = Client(linger=0.0, in_flight=1, batch_records=100)
    scenario = Scenario(careful, Broker(), partitions=4, acks="1", round_trip=0.1)
    assert simulate(scenario, 10.0).produced == pytest.approx(4 * 100 / 0.1, rel=0.03)


def test_a_round_trip_limits_a_worker_to_a_fetch_at_a_time() -> None:
    scenario = Scenario(
        FREE,
        Broker(),
        event_bytes=KILOBYTE,
        producers=0,
        groups=(1.0,),
        partitions=4,
        backlog=True,
        round_trip=0.1,
        fetch_partition_bytes=KILOBYTE * 100,
    )
    assert simulate(scenario, 10.0).consumed == pytest.approx(4 * 100 / 0.1, rel=0.03)


def test_copies_fall_behind_when_nobody_waits_for_them() -> None:
    broker = Broker(append=Cost(record=1e-6), copy=Cost(record=8e-6))
    scenario = Scenario(FREE, broker, copies=2, brokers=2, acks="1", groups=(1.0,))
    outcome = simulate(scenario, 0.5)
    assert outcome.consumed < outcome.produced / 2, "consumers see what all copies have"
    careful = simulate(dataclasses.replace(scenario, acks="all"), 0.5)
    assert careful.consumed == pytest.approx(careful.produced, rel=0.15)


def test_more_certainty_takes_longer() -> None:
    broker = Broker(append=Cost(request=1e-3), copy=Cost(request=1e-3))

    def after(acks: str) -> float:
        common = {"copies": 3, "brokers": 3, "rate": 100.0, "round_trip": 0.01, "broker_round_trip": 0.01}
        return percentile(simulate(Scenario(FREE, broker, acks=acks, **common), 5.0).acknowledged_after, 0.5)  # type: ignore[arg-type]

    assert after("0") < after("1") < after("all")
    assert after("1") == pytest.approx(0.011, rel=0.01)
    # There and back, to the follower and back, and the fetch that says so: half a round trip more than one between brokers.
    assert 0.02 < after("all") < 0.04


def counted(outcome: Outcome) -> list[int]:
    return [outcome.counts[name] for name in ("handed", "stored", "acknowledged", "fetched", "handled")]


@pytest.mark.parametrize("acks", ["0", "1", "all"])
@pytest.mark.parametrize("joint", [False, True])
def test_no_event_is_lost_or_made_up(acks: str, joint: bool) -> None:
    client = Client(
        produce=Cost(50e-6, 1e-6), consume=Cost(50e-6, 2e-6), linger=0.0, joint=joint, in_flight=1, queue_records=2000
    )
    broker = Broker(Cost(100e-6, 1e-6), Cost(100e-6), Cost(100e-6, 1e-6), idle=0.05)
    scenario = Scenario(
        client, broker, producers=3, groups=(1.0, 1.0), consumers=2, copies=3, brokers=3, acks=acks, partitions=6
    )
    handed, stored, acknowledged, fetched, handled = counted(simulate(scenario, 0.3))
    assert 0 <= handed - acknowledged <= 3 * 2000, "what is queued"
    under_way = 3 * 6 * 2000 if acks == "0" else 0
    assert 0 <= handed - stored <= 3 * 2000 + under_way
    assert 2 * stored >= fetched >= handled > 0
    # With little to do, everything that is handed over arrives at both groups.
    quiet = dataclasses.replace(scenario, rate=200.0)
    handed, stored, acknowledged, fetched, handled = counted(simulate(quiet, 0.5))
    assert handed - handled / 2 <= 20


def test_the_same_scenario_has_the_same_outcome() -> None:
    scenario = Scenario(FREE, SLOW_BROKER, rate=5000.0, regular=False, groups=(1.0,), copies=2, brokers=2, seed=4)
    assert simulate(scenario, 0.1) == simulate(scenario, 0.1)
    assert simulate(scenario, 0.1) != simulate(dataclasses.replace(scenario, seed=5), 0.1)


def test_an_idle_broker_takes_its_part() -> None:
    outcome = simulate(Scenario(FREE, dataclasses.replace(SLOW_BROKER, idle=0.25), acks="1"), 2.0)
    assert outcome.produced == pytest.approx(75_000, rel=0.02)


def test_brokers_of_one_machine_share_its_cores() -> None:
    scenario = Scenario(FREE, SLOW_BROKER, acks="1", brokers=3, partitions=6)
    assert simulate(scenario, 0.5).produced == pytest.approx(300_000, rel=0.02)
    shared = dataclasses.replace(scenario, one_machine=True)
    assert simulate(shared, 0.5).produced == pytest.approx(100_000, rel=0.02)
