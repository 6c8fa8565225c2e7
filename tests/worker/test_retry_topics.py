"""What a worker promises about retries that wait in a topic, on the in-process broker."""

import asyncio
import re
from collections import Counter
from functools import partial
from typing import Any

import pytest

from octopus import Event, Octopus, RetryLater, RetryPolicy
from octopus.errors import ConfigurationError, ConnectionFailed, HandlerStopped, RecordTooLarge
from octopus.events import TopicPartition
from octopus.routing import Delivery
from octopus.testing import VirtualTime
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker
from octopus.transports.topic_queue import MENDS
from octopus.triggers.aws import handler
from octopus.worker.exit_codes import ExitCode, exit_code
from octopus.worker.status import last_line
from tests import staged
from tests.staged import committed, dead_letters, publish, until

PATIENT = RetryPolicy(attempts=3, backoff=60, factor=2, maximum=86_400, jitter=0)
RETRIES = "app.handle.retry"
R0 = TopicPartition(RETRIES, 0)


DELIVERIES: list[Delivery] = ["at_least_once", "exactly_once"]
EPOCH = 1_700_000_000.0


@pytest.fixture(autouse=True)
def in_virtual_time(virtual_time: VirtualTime) -> None:
    """Hours pass at once."""


def clock() -> float:
    """The wall clock, which goes with virtual time."""
    return EPOCH + asyncio.get_running_loop().time()


working, killed = partial(staged.working, clock=clock), partial(staged.killed, clock=clock)


def waiting(broker: MemoryBroker, topic: str = RETRIES) -> int:
    return sum(log.end for log in broker.topics.get(topic, []))


def failing(seen: list[tuple[int, int]], until_attempt: int = 3, **options: Any) -> Octopus:
    """Return an app whose handler notes value and attempt, and fails before some attempt."""
    app = Octopus("app")

    @app.on("t", **{"retry": PATIENT, "retry_topic": True, **options})
    async def handle(event: Event[int]) -> Any:
        assert (event.topic, event.partition, event.offset) == ("t", 0, event.value)
        seen.append((event.value, event.attempt))
        if event.attempt < until_attempt:
            raise OSError("not yet")
        return event.value if "to" in options else None

    return app


async def test_a_deferred_record_is_settled_and_comes_back_when_it_is_due() -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, 0, 1)
    async with working(failing(seen), broker) as worker:
        await until(lambda: committed(broker, "app.handle") == 2)
        await asyncio.sleep(55)
        assert seen == [(0, 1), (1, 1)]
        await asyncio.sleep(6)
        assert seen[2:] == [(0, 2), (1, 2)]
        await asyncio.sleep(121)
        assert seen[4:] == [(0, 3), (1, 3)]
        await until(lambda: committed(broker, RETRIES, R0) == 4)
        groups = {group.group: group for group in worker.status().groups}
        assert (groups["app.handle"].deferred, groups["app.handle"].done, groups["app.handle"].retried) == (2, 0, 2)
        assert (groups[RETRIES].deferred, groups[RETRIES].done, groups[RETRIES].retried) == (2, 2, 2)
        assert groups[RETRIES].handlers == ("handle.retry",)


async def test_a_kill_keeps_due_time_and_attempt() -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, 0)
    async with killed(failing(seen), broker):
        await until(lambda: committed(broker, "app.handle") == 1)
        await asyncio.sleep(20)
    async with killed(failing(seen), broker):
        await asyncio.sleep(30)
        assert seen == [(0, 1)]
        await asyncio.sleep(12)
        assert seen == [(0, 1), (0, 2)]
    await asyncio.sleep(120)
    async with working(failing(seen), broker) as worker:
        await worker.caught_up()
        assert seen == [(0, 1), (0, 2), (0, 3)], "what fell due while nobody was there runs at once"


async def test_a_kill_between_the_retrys_publication_and_the_commit_repeats_and_does_not_lose() -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, 0)
    async with killed(failing(seen), broker, worker={"commit_interval": 100}):
        await until(lambda: waiting(broker) == 1)
        assert committed(broker, "app.handle") == 0
    async with working(failing(seen), broker):
        await asyncio.sleep(400)
    assert Counter(seen) == {(0, 1): 2, (0, 2): 2, (0, 3): 2}


async def test_a_broker_that_is_away_is_waited_for() -> None:
    broker, seen = MemoryBroker(clock=clock), []
    async with working(failing(seen), broker):
        await until(lambda: committed(broker, "app.handle") == 0)
        publish(broker, 0)
        broker.faults.fail_next("send", ConnectionFailed("away"), times=8)
        await asyncio.sleep(10)
        assert committed(broker, "app.handle") == 0
        await until(lambda: committed(broker, "app.handle") == 1, 60)
        assert waiting(broker) == 1


@pytest.mark.parametrize(
    ("refused", "topics"),
    [(MENDS + 1, {}), (1, {"create": False})],
    ids=["however often its limit was raised", "whose limit may not be raised"],
)
async def test_a_retry_that_the_topic_refuses_holds_its_lane(refused: int, topics: dict[str, Any]) -> None:
    broker, seen = MemoryBroker(clock=clock), []
    broker.create_topic(RETRIES)
    publish(broker, 0, 1)
    broker.faults.fail_next("send", RecordTooLarge("too large"), times=refused)
    async with working(failing(seen), broker, topics=topics):
        await asyncio.sleep(59)
        assert seen == [(0, 1)]
        assert (committed(broker, "app.handle"), waiting(broker)) == (0, 0)
        await until(lambda: committed(broker, "app.handle") == 2, 20)
        assert seen == [(0, 1), (0, 2), (1, 1)]
        await asyncio.sleep(400)
        assert Counter(seen) == {(number, attempt): 1 for number in (0, 1) for attempt in (1, 2, 3)}


async def test_dead_letters_name_the_first_coordinates() -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, 0)
    async with working(failing(seen, until_attempt=99), broker):
        await asyncio.sleep(185)
    (dead_letter,) = dead_letters(broker)
    said = {name.removeprefix("octopus-dead-letter-"): value for name, value in dead_letter.headers}
    assert (said["topic"], said["offset"], said["attempts"], said["handler"]) == (b"t", b"0", b"3", b"handle")


@pytest.mark.parametrize("filtered", [False, True])
async def test_of_several_handlers_of_a_group_only_the_one_that_failed_runs_again(filtered: bool) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(clock=clock), []
    shared: dict[str, Any] = {"group": "shared", "filter": {"n": [1]} if filtered else None}

    @app.on("t", retry=PATIENT, retry_topic=True, **shared)
    async def handle(event: Event[dict]) -> None:
        seen.append(("handle", event.offset, event.attempt))
        if event.attempt == 1:
            raise OSError("not yet")

    @app.on("t", **shared)
    async def other(event: Event[dict]) -> None:
        seen.append(("other", event.offset, event.attempt))

    publish(broker, {"n": 1}, {"n": 1})
    async with working(app, broker):
        await until(lambda: committed(broker, "shared") == 2)
        await asyncio.sleep(65)
    again = [("handle", offset, attempt) for offset in (0, 1) for attempt in (1, 2)]
    assert sorted(seen) == [*again, ("other", 0, 1), ("other", 1, 1)]


async def test_a_drain_does_not_wait_for_what_is_not_due_but_runs_what_is() -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, *range(5))
    async with working(failing(seen), broker) as worker:
        async with asyncio.timeout(60):
            await worker.caught_up()
    assert len(seen) == 5
    await asyncio.sleep(60)
    async with working(failing(seen), broker) as worker:
        async with asyncio.timeout(60):
            await worker.caught_up()
    assert Counter(attempt for _, attempt in seen) == {1: 5, 2: 5}


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_group_that_stops_stops_its_retries_and_the_other_way_round(attempt: int) -> None:
    app, broker = Octopus("app"), MemoryBroker(clock=clock)

    @app.on("t", retry=PATIENT, retry_topic=True, dead_letter=False)
    async def handle(event: Event[int]) -> None:
        if event.attempt == attempt:
            raise HandlerStopped("enough")
        raise OSError("not yet")

    publish(broker, 0)
    async with working(app, broker) as worker:
        with pytest.raises(HandlerStopped, match="enough"):
            async with asyncio.timeout(7200):
                await worker.wait()
    assert waiting(broker) == attempt - 1
    assert committed(broker, RETRIES, R0) == 0


async def test_more_than_fits_into_memory_is_late_by_minutes_and_never_stuck() -> None:
    broker, app, late, held, seen = MemoryBroker(clock=clock), Octopus("app"), [], [], set()

    @app.on("t", retry=PATIENT, retry_topic=True, ordering="none")
    async def handle(event: Event[dict]) -> None:
        if event.offset not in seen:
            seen.add(event.offset)
            raise RetryLater(event.value["after"])
        late.append(asyncio.get_running_loop().time() - event.value["due"])

    # Ten times of what fits wait for a day; behind them come some that are due in minutes.
    limit = 200
    async with working(app, broker, worker={"in_flight_records": limit}) as worker:
        publish(broker, *({"after": 80_000} for _ in range(10 * limit)))
        await until(lambda: waiting(broker) >= 10 * limit, 600)
        now = asyncio.get_running_loop().time()
        publish(broker, *({"after": 300, "due": now + 300} for _ in range(20)))
        async with asyncio.timeout(6 * 3600):
            while len(late) < 20:
                await asyncio.sleep(10)
                held.append({group.group: group for group in worker.status().groups}[RETRIES].in_flight)
        assert waiting(broker) < 40 * limit, "nothing goes round and round"
    assert min(late) >= 0
    assert max(late) <= 60 * 10 * limit / (limit / 4), "a minute for each quarter of the limit that is ahead"
    assert max(held) <= limit + 500


async def test_one_that_waits_long_does_not_hold_the_commit_of_those_behind_it_for_long() -> None:
    broker, app, seen = MemoryBroker(clock=clock), Octopus("app"), []

    @app.on("t", retry_topic=True, ordering="none", retry=RetryPolicy(defer_beyond=0))
    async def handle(event: Event[int]) -> None:
        seen.append(event.value)
        if seen.count(event.value) == 1:
            raise RetryLater(80_000 if event.value == 0 else 1)

    publish(broker, 0)
    async with working(app, broker):
        await until(lambda: waiting(broker) == 1)
        publish(broker, *range(1, 2000))
        await asyncio.sleep(200)
        assert (committed(broker, RETRIES, R0) or 0) >= 2000
        assert waiting(broker) == 2001


@pytest.mark.parametrize("until_attempt", [2, 3])
async def test_exactly_once_takes_retries_into_its_transactions(until_attempt: int) -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, *range(20))
    options: dict[str, Any] = {"delivery": "exactly_once", "to": "out", "ordering": "none"}
    for _ in range(5):
        async with killed(failing(seen, until_attempt, **options), broker):
            await asyncio.sleep(45)
    assert sum(log.end for log in broker.topics["out"]) >= 20
    values = [record.value for log in broker.topics["out"] for record in log.read(0, 1000)[0]]
    assert sorted(map(int, values)) == [*range(20)]


async def test_an_exactly_once_retry_that_the_broker_refuses_is_a_dead_letter() -> None:
    broker, app = MemoryBroker(clock=clock, max_record_bytes=150), Octopus("app")

    @app.on("t", retry=PATIENT, retry_topic=True, delivery="exactly_once", dead_letter=False)
    async def handle(value: str) -> None:
        raise OSError("not yet")

    publish(broker, "x" * 100)
    broker.create_topic(RETRIES)
    async with working(app, broker, topics={"create": False}) as worker:
        with pytest.raises(HandlerStopped, match="which the broker refuses"):
            await worker.wait()
    assert committed(broker, "app.handle") == 0


async def test_a_pattern_takes_in_no_retry_topics_unless_it_says_so() -> None:
    broker, app, seen = MemoryBroker(clock=clock), Octopus("lab"), []

    @app.on(re.compile(".*"), retry=PATIENT, retry_topic=True)
    async def handle(event: Event[int]) -> None:
        seen.append((event.topic, event.attempt))
        if event.attempt == 1:
            raise OSError("not yet")

    publish(broker, 0)
    async with working(app, broker):
        await asyncio.sleep(65)
    assert seen == [("t", 1), ("t", 2)]

    looking = Octopus("looking")

    @looking.on(re.compile(r".*\.retry"))
    async def look(event: Event[int]) -> None:
        seen.append((event.topic, event.attempt))

    async with working(looking, broker):
        await until(lambda: len(seen) == 3)
    assert seen[2] == ("lab.handle.retry", 1)


async def test_two_workers_share_what_waits() -> None:
    broker, first, second = MemoryBroker(clock=clock), [], []
    settings: dict[str, Any] = {"topics": {"partitions": 4}}
    for number in range(40):
        broker.append([Outgoing("t", b"%d" % number, b"k%d" % number)])
    async with working(failing(first), broker, **settings):
        await until(lambda: committed(broker, "app.handle") == 40)
        async with working(failing(second), broker, **settings):
            await asyncio.sleep(190)
    assert first.count(first[0]) == 1
    assert Counter(first + second) == Counter({(number, attempt): 1 for number in range(40) for attempt in (1, 2, 3)})
    assert second


def test_lambda_refuses_a_retry_topic() -> None:
    with pytest.raises(
        ConfigurationError, match=r"handler 'handle' has a retry topic, which a function cannot wait for"
    ):
        handler(failing([]))


@pytest.mark.parametrize("pattern", ["app.*retry", "t|app.handle.retry"])
async def test_a_handler_does_not_read_the_topic_in_which_its_retries_wait(pattern: str) -> None:
    app = Octopus("app")

    @app.on(re.compile(pattern), retry_topic=True)
    async def handle(value: int) -> None: ...

    with pytest.raises(ConfigurationError, match="would come straight back"):
        async with working(app):
            pass


# ── retry topics that go ──────────────────────────────────────────────────────────────────────────────────────────────


def go(broker: MemoryBroker, how: str) -> None:
    """Delete the retry topic; its group hears of it, or does not."""
    if how == "heard of":
        broker.delete_topic(RETRIES)
    else:
        del broker.topics[RETRIES], broker.topic_ids[RETRIES]


gone = pytest.mark.parametrize("how", ["heard of", "not heard of"])
deliveries = pytest.mark.parametrize("delivery", DELIVERIES)


@gone
@deliveries
async def test_retries_whose_topic_is_deleted_outlive_a_stop(how: str, delivery: Delivery) -> None:
    broker, seen = MemoryBroker(clock=clock), []
    app = failing(seen, until_attempt=2, delivery=delivery)
    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await until(lambda: sum(group.delayed for group in worker.status().groups) == 2)
        go(broker, how)
    assert waiting(broker) == 2, "written to a topic that was made again"
    assert last_line(worker.status(), is_well=True, is_caught_up=False).endswith(" s")
    async with working(app, broker):
        await asyncio.sleep(65)
    assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (1, 2)]


@deliveries
@pytest.mark.parametrize("again", [True, False], ids=["and goes on", "and stops"])
async def test_retries_whose_topic_is_gone_when_the_session_ends_are_kept(delivery: Delivery, again: bool) -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, 0, 1)
    async with working(failing(seen, until_attempt=2, delivery=delivery), broker) as worker:
        await until(lambda: sum(group.delayed for group in worker.status().groups) == 2)
        go(broker, "not heard of")
        broker.expel(RETRIES)
        if again:
            await until(lambda: len(seen) == 4, 200)
    assert not any(group.stranded for group in worker.status().groups)
    async with working(failing(seen, until_attempt=2, delivery=delivery), broker):
        await asyncio.sleep(65)
    assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (1, 2)]


@gone
@deliveries
@pytest.mark.parametrize(("takes", "attempt"), [(4, 3), (3600, 2)], ids=["fails", "outlasts the drain"])
async def test_a_retry_that_runs_when_its_topic_is_deleted_and_does_not_finish_comes_again(
    how: str, delivery: Delivery, takes: float, attempt: int
) -> None:
    broker, seen, app = MemoryBroker(clock=clock), [], Octopus("app")

    @app.on("t", retry=PATIENT, retry_topic=True, delivery=delivery)
    async def handle(event: Event[int]) -> None:
        seen.append(event.attempt)
        if len(seen) == 1:
            raise OSError("not yet")
        if len(seen) == 2:
            await asyncio.sleep(takes)
            raise OSError("not yet")

    publish(broker, 0)
    async with working(app, broker, worker={"drain_timeout": 5, "revoke_budget": 1}) as worker:
        await until(lambda: len(seen) == 2, 120)
        go(broker, how)
    assert not any(group.stranded for group in worker.status().groups)
    async with working(app, broker):
        await until(lambda: len(seen) == 3, 200)
        await asyncio.sleep(300)
    assert seen == [1, 2, attempt]


@gone
@deliveries
async def test_retries_whose_topic_nobody_makes_again_wait_for_it_and_are_said_to_be_lost_in_the_end(
    how: str, delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    broker, seen = MemoryBroker(clock=clock, auto_create=0), []
    for topic in ("t", RETRIES, "t.dead-letter"):
        broker.create_topic(topic)
    app = failing(seen, until_attempt=2, delivery=delivery)
    publish(broker, 0, 1)
    async with working(app, broker, topics={"create": False}) as worker:
        await until(lambda: sum(group.delayed for group in worker.status().groups) == 2)
        go(broker, how)
        await asyncio.sleep(30)
        if how == "heard of":
            (said,) = [each.message for each in caplog.records if "in memory only" in each.message]
            assert said.startswith("app.handle.retry: 2 events that wait for their retry")
    (group,) = [each for each in worker.status().groups if each.stranded]
    assert (group.group, group.stranded) == (RETRIES, 2)
    # a partition that cannot be read is told first
    expected = ExitCode.FAILED if how == "heard of" else ExitCode.PROCESSING_STOPPED
    assert exit_code(worker.failures, worker.status()) == expected
    line = last_line(worker.status(), is_well=False, is_caught_up=False)
    assert "; app.handle.retry lost 2 events that waited for their retry, whose topic is gone" in line


@deliveries
async def test_retries_whose_topic_somebody_makes_again_later_are_written_to_it(delivery: Delivery) -> None:
    broker, seen = MemoryBroker(clock=clock, auto_create=0), []
    for topic in ("t", RETRIES, "t.dead-letter"):
        broker.create_topic(topic)
    publish(broker, 0, 1)
    async with working(failing(seen, until_attempt=2, delivery=delivery), broker, topics={"create": False}) as worker:
        await until(lambda: sum(group.delayed for group in worker.status().groups) == 2)
        broker.delete_topic(RETRIES)
        await asyncio.sleep(120)
        broker.create_topic(RETRIES)
        await until(lambda: len(seen) == 4, 200)
        assert not any(group.stranded for group in worker.status().groups)
    assert sorted(seen) == [(0, 1), (0, 2), (1, 1), (1, 2)]


# ── wall clocks that jump ─────────────────────────────────────────────────────────────────────────────────────────────


class JumpingClock:
    """A wall clock that goes with virtual time, and can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return clock() + self.ahead


HOUR = 3600.0


@deliveries
@pytest.mark.parametrize("broker_jumps", [True, False], ids=["everywhere", "at the worker alone"])
@pytest.mark.parametrize(
    ("jumps", "latest"),
    [
        ([HOUR], 100),
        ([HOUR, 0], 700),
        ([-HOUR, 0], 800),
        ([0, 2 * 86_400, 0], 800),
        ([-2 * 86_400, 2 * 86_400, 0], 800),
    ],
    ids=["forward", "forward and back", "back and forward", "two days forward and back", "to and fro by days"],
)
async def test_a_wall_clock_that_jumps_while_retries_wait_loses_and_repeats_none(
    jumps: list[float], latest: float, broker_jumps: bool, delivery: Delivery
) -> None:
    wall, seen = JumpingClock(), []
    broker = MemoryBroker(clock=wall if broker_jumps else clock)
    policy = RetryPolicy(attempts=2, backoff=600, jitter=0)
    publish(broker, *range(5))
    app = failing(seen, until_attempt=2, retry=policy, delivery=delivery)
    async with staged.working(app, broker, clock=wall):
        await until(lambda: len(seen) == 5)
        began = asyncio.get_running_loop().time()
        for jump in jumps:
            wall.ahead = jump
            await asyncio.sleep(30)
        await until(lambda: len(seen) == 10, 1000)
        assert asyncio.get_running_loop().time() - began < latest
        await asyncio.sleep(100)
        assert waiting(broker) < 5 * 8, "nothing goes round and round"
    assert sorted(seen) == [(value, attempt) for value in range(5) for attempt in (1, 2)]
    assert dead_letters(broker) == []


@pytest.mark.parametrize("ahead", [3 * 86_400.0, -3 * 86_400.0], ids=["ahead of", "behind"])
async def test_a_worker_whose_clock_is_days_away_from_the_brokers_does_not_write_its_retries_round_and_round(
    ahead: float,
) -> None:
    broker, seen = MemoryBroker(clock=clock), []
    publish(broker, *range(5))
    app = failing(seen, until_attempt=2, retry=RetryPolicy(attempts=2, backoff=900, jitter=0))
    async with staged.working(app, broker, clock=lambda: clock() + ahead):
        await asyncio.sleep(600)
        assert waiting(broker) <= 5 * 11, "once a minute at most"
        await until(lambda: len(seen) == 10, 1000)
