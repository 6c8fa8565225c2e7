"""What a status counts never falls, whenever somebody looks."""

import asyncio
import itertools
import random
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, RetryPolicy
from octopus.errors import ConnectionFailed
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker
from octopus.worker import GroupStatus, Worker, WorkerStatus
from octopus.worker.status import last_line
from tests.staged import dead_letters, publish, working

COUNTS = ("done", "settled", "skipped", "dead", "deferred", "retried")


async def watched(worker: Worker) -> list[GroupStatus]:
    """Look at a worker after every turn of its loop until it has done everything."""
    seen: list[GroupStatus] = []
    ending = asyncio.create_task(worker.caught_up())
    while not ending.done():
        await asyncio.sleep(0.001)
        seen += worker.status().groups
    await ending
    return [*seen, worker.status().groups[0]]


def falls(seen: list[GroupStatus]) -> list[tuple[str, int, int]]:
    return [
        (name, getattr(before, name), getattr(after, name))
        for before, after in itertools.pairwise(seen)
        for name in COUNTS
        if getattr(after, name) < getattr(before, name)
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("how", "ordering"),
    [
        *itertools.product(["handler", "middleware", "two handlers"], ["partition", "key", "none"]),
        ("batch", "partition"),
    ],
)
async def test_no_count_falls_while_records_run(ordering: Any, how: str, seed: int, virtual_time: VirtualTime) -> None:
    chance, broker, app = random.Random(seed), MemoryBroker(), Octopus("app")
    group: dict[str, Any] = {"group": "g"} if how == "two handlers" else {}
    batch: dict[str, Any] = {"batch": 7} if how == "batch" else {}
    if how == "middleware":

        @app.middleware
        async def passing(record: Any, call_next: Any) -> Any:
            return await call_next(record)

    async def work(value: int) -> None:
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
        if value % 97 == 3:
            raise ValueError("no")

    policy = RetryPolicy(attempts=2, backoff=0.01)
    options = {"ordering": ordering, "concurrency": 4, "filter": {"take": [True]}, "retry": policy} | group

    if how == "batch":

        @app.on("t", **options, **batch)
        async def handle_all(events: list[Event[dict[str, Any]]]) -> None:
            for event in events:
                await work(event.value["n"])
    else:

        @app.on("t", **options)
        async def handle(event: Event[dict[str, Any]]) -> None:
            await work(event.value["n"])

    if how == "two handlers":

        @app.on("t", **(options | {"filter": {"n": [3, 4, 5]}}))
        async def other(event: Event[dict[str, Any]]) -> None:
            await work(event.value["n"])

    values = [{"n": number, "take": chance.random() < 0.4} for number in range(400)]
    broker.append([Outgoing("t", msgspec.json.encode(value), b"%d" % (value["n"] % 9)) for value in values])
    async with working(app, broker) as worker:
        seen = await watched(worker)
    assert falls(seen) == []
    assert seen[-1].settled == 400
    if how != "two handlers":
        wanted = [value["n"] for value in values if value["take"]]
        dead = [number for number in wanted if number % 97 == 3]
        assert (seen[-1].skipped, seen[-1].dead) == (400 - len(wanted), len(dead))
        assert seen[-1].done == len(wanted) - len(dead)


async def test_counts_go_on_when_a_group_is_given_a_new_consumer(virtual_time: VirtualTime) -> None:
    app, broker, failures = Octopus("app"), MemoryBroker(), [0]

    @app.on("t")
    async def handle(_value: int) -> None: ...

    publish(broker, *range(50))
    async with working(app, broker) as worker:
        await worker.caught_up()
        assert worker.status().groups[0].done == 50

        def fail(what: str) -> None:
            if what == "fetch" and not failures[0]:
                failures[0] += 1
                raise ConnectionFailed("gone")

        check = broker.faults.check
        broker.faults.check = fail  # type: ignore[method-assign]
        seen = [worker.status().groups[0]]
        while worker.status().groups[0].failure is None and not failures[0]:
            await asyncio.sleep(0.01)
        broker.faults.check = check  # type: ignore[method-assign]
        publish(broker, *range(50))
        seen += await watched(worker)
        while seen[-1].done < 100:
            await asyncio.sleep(0.1)
            seen.append(worker.status().groups[0])
    assert falls(seen) == []
    assert seen[-1].done == 100


class Registry:
    """A codec that asks somebody who is away at first."""

    content_type = "application/x-registered"

    def __init__(self, failures: int, *, compiling: bool) -> None:
        self.failures = failures
        self._compiling = compiling

    def _ask(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionFailed("the schema registry is away")

    def decoder(self, annotation: Any) -> Any:
        if self._compiling:
            self._ask()

        def decode(value: bytes) -> Any:
            self._ask()
            return msgspec.json.decode(value, type=annotation)

        return decode

    def encode(self, value: Any) -> bytes:
        return msgspec.json.encode(value)


@pytest.mark.parametrize("compiling", [False, True], ids=["while decoding", "while compiling"])
@pytest.mark.parametrize(
    "options", [{}, {"filter": {"n": [{"exists": True}]}}, {"batch": 3}], ids=["plain", "filter", "batch"]
)
async def test_events_wait_as_long_as_what_their_codec_needs_is_away(
    options: dict[str, Any], compiling: bool, virtual_time: VirtualTime
) -> None:
    app = Octopus("app", codecs=[Registry(40, compiling=compiling)])
    broker, done = MemoryBroker(), []

    if "batch" in options:

        @app.on("t", retry=RetryPolicy(attempts=2), **options)
        async def handle_all(events: list[Event[dict[str, int]]]) -> None:
            done.extend((event.value["n"], event.attempt) for event in events)
    else:

        @app.on("t", retry=RetryPolicy(attempts=2), **options)
        async def handle(event: Event[dict[str, int]]) -> None:
            done.append((event.value["n"], event.attempt))

    headers = [("content-type", b"application/x-registered")]
    publish(broker, *[{"n": number} for number in range(3)], headers=headers)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert sorted(done) == [(0, 1), (1, 1), (2, 1)]
    assert dead_letters(broker) == []


@pytest.mark.parametrize(
    ("lags", "said"),
    [([0, 0], ""), ([2, 1], ", 3 left"), ([None, 1], ", at least 1 left"), ([None, 0], ", unknown how many left")],
    ids=["none", "some", "some and perhaps more", "nobody knows"],
)
def test_the_last_line_says_how_much_is_left_or_that_nobody_knows(lags: list[int | None], said: str) -> None:
    reading = (TopicPartition("t", 0),)
    groups = [
        GroupStatus(group=f"g{number}", handlers=("g",), partitions=reading, lag=lag) for number, lag in enumerate(lags)
    ]
    resting = GroupStatus(group="resting", handlers=("g",))  # what others read is theirs to say
    status = WorkerStatus(app="app", broker="b", uptime=1.0, groups=(*groups, resting))
    assert last_line(status, is_well=True, is_caught_up=False) == f"ended: 0 done, 0 skipped{said} in 1.0 s"
