"""What a worker promises about delivery where it depends on the ordering, on the embedded broker and on Apache Kafka."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, RetryPolicy, config
from octopus.errors import ConnectionFailed
from octopus.events import TopicPartition
from octopus.transports.base import Headers, Outgoing
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka import KafkaSettings, KafkaTransport
from octopus.worker import Worker
from tests.faults.modes import across

ORDERINGS = ("partition", "key", "none")
"""Handlers of batches do not share a group."""

OFFSET_COMMIT = 8
QUICK = {
    "consumer": {"session_timeout": 6, "rebalance_timeout": 12},
    "worker": {"commit_interval": 0.05, "commit_timeout": 2},
}


class Desk:
    """One topic of two partitions, an app that reads it, and what is committed.

    Args:
        address: `host:port`.
        mode: An ordering, or `batch`.
    """

    def __init__(self, address: str, mode: str) -> None:
        token = secrets.token_hex(4)
        self.topic, self.group = f"desk-{token}", f"desk-{token}.shared"
        self.options: dict[str, Any] = {"group": self.group, "retry": RetryPolicy(attempts=3, backoff=0.02)}
        self.options |= {"batch": 4, "within": 0.02} if mode == "batch" else {"ordering": mode}
        self.address = address
        self.mode = mode
        transport = KafkaTransport(KafkaSettings(brokers=address))
        self._producer, self._admin = transport.producer(), transport.admin()
        self._ends: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> "Desk":
        await self._producer.start()
        await self._admin.start()
        await self._admin.create_topic(self.topic, partitions=2)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._admin.stop()

    def app(self, *handlers: Callable[[Event[Any]], Any], **given: Any) -> Octopus:
        """Return an app of some handlers in one group, each of which gets event by event."""
        app = Octopus("desk", **given)
        for handle in handlers:
            if self.mode == "batch":

                @app.on(self.topic, name=handle.__name__, **self.options)
                async def in_batches(events: list[Event[Any]], handle: Any = handle) -> None:
                    for event in events:
                        await handle(event)

            else:

                @app.on(self.topic, name=handle.__name__, **self.options)
                async def single(event: Event[Any], handle: Any = handle) -> None:
                    await handle(event)

        return app

    def working(self, app: Octopus, **given: Any) -> Worker:
        """Return a worker for it."""
        settings = config.merge(QUICK, {"brokers": [self.address], "topics": {"partitions": 2}}, given)
        return Worker(app, config.load(settings))

    async def publish(self, *values: Any, headers: Headers = (), partition: int | None = None) -> None:
        """Publish with a key for each."""
        messages = [
            Outgoing(self.topic, msgspec.json.encode(value), b"k%d" % number, headers, partition)
            for number, value in enumerate(values)
        ]
        for stored in await self._producer.send_many(messages):
            at = TopicPartition(stored.topic, stored.partition)
            self._ends[at] = max(self._ends.get(at, 0), stored.offset + 1)

    async def committed(self) -> int:
        """How many records are committed."""
        found = await self._admin.group_offsets(self.group)
        return sum(commit.offset for commit in found.values() if commit.offset > 0)

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until everything is committed, and no more than there is."""
        deadline = time.monotonic() + timeout
        while (committed := await self.committed()) < sum(self._ends.values()):
            assert time.monotonic() < deadline, f"{committed} of {self._ends} are committed"
            await asyncio.sleep(0.02)
        assert committed == sum(self._ends.values())


@pytest.fixture
async def desk(either: str, mode: str) -> AsyncIterator[Desk]:
    async with Desk(either, mode) as desk:
        yield desk


CODES = [
    pytest.param(14, id="the coordinator is loading"),
    pytest.param(16, id="another coordinator"),
    # the broker waits a session for the member that only we took away
    pytest.param(22, id="an old assignment", marks=pytest.mark.slow),
    pytest.param(25, id="an unknown member", marks=pytest.mark.slow),
    pytest.param(27, id="a rebalance"),
    pytest.param(30, id="not authorized"),
    pytest.param(12, id="metadata that is too large"),
    pytest.param(-1, id="unexpected"),
]


@across("key")
@pytest.mark.parametrize("code", CODES)
async def test_commits_that_a_broker_refuses_are_repeated_and_lose_nothing(
    code: int, mode: str, embedded: EmbeddedTransport
) -> None:
    async with Desk(embedded.address, mode) as desk:
        seen: Counter[int] = Counter()

        async def handle(event: Event[int]) -> None:
            seen[event.value] += 1

        async with desk.working(desk.app(handle)) as worker:
            await desk.publish(*range(20))
            await desk.settled()
            for first in (20, 40):
                embedded.faults.fail(OFFSET_COMMIT, code)
                await desk.publish(*range(first, first + 20))
                await desk.settled()
                embedded.faults.clear()
            assert worker.failures == []
        assert seen.keys() == {*range(60)}
        assert seen.total() <= 60 + 2 * 20  # what a lost membership gave back, each time


@across("none", modes=ORDERINGS)
async def test_of_several_handlers_in_a_group_only_the_one_that_failed_runs_again(mode: str, desk: Desk) -> None:
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()

    async def works(event: Event[int]) -> None:
        good[event.value] += 1

    async def fails(event: Event[int]) -> None:
        bad[event.value] += 1
        if event.value == 3 and bad[3] < 3:
            raise OSError("busy")
        if event.value == 5:
            raise ValueError("never")

    async with desk.working(desk.app(works, fails)) as worker:
        await desk.publish(*range(12))
        await desk.settled()
        assert worker.status().groups[0].dead == 1
    assert good == dict.fromkeys(range(12), 1)
    assert bad[3] == 3
    assert bad[5] >= 3


@across("partition")
async def test_a_filter_that_must_be_asked_again_is_no_mismatch(mode: str, desk: Desk) -> None:
    class Registry:
        """A codec whose registry is away at first."""

        content_type = "application/x-registered"
        away = 2

        def decoder(self, annotation: Any) -> Any:
            def decode(data: bytes) -> Any:
                if self.away:
                    self.away -= 1
                    raise ConnectionFailed("the registry is away")
                return msgspec.json.decode(data)

            return decode

        def encode(self, value: Any) -> bytes:
            return msgspec.json.encode(value)

    seen: list[int] = []

    async def handle(event: Event[Any]) -> None:
        seen.append(event.value["n"])

    desk.options["filter"] = {"n": [{"exists": True}]}
    async with desk.working(desk.app(handle, codecs=[Registry()])):
        await desk.publish({"n": 0}, {"n": 1})
        await desk.publish({"n": 2}, {"m": 3}, headers=(("content-type", b"application/x-registered"),))
        await desk.publish({"n": 4})
        await desk.settled()
    assert sorted(seen) == [0, 1, 2, 4]


@across("batch")
async def test_what_is_in_flight_is_bounded_while_handlers_hang(mode: str, desk: Desk) -> None:
    release, count = asyncio.Event(), [0]

    async def handle(event: Event[str]) -> None:
        await release.wait()
        count[0] += 1

    large = "0" * 200_000
    async with desk.working(desk.app(handle), worker={"in_flight_bytes": 4_000_000}) as worker:
        for _ in range(3):
            await desk.publish(*[large] * 40)  # 24 MB
        deadline = time.monotonic() + 1.0  # for as long nothing may happen
        highest = 0
        while time.monotonic() < deadline:
            highest = max(highest, worker.status().groups[0].in_flight)
            await asyncio.sleep(0.01)
        # a fetch that is under way when the limit is reached is still taken, one for each partition
        assert 1 < highest <= 20 + 2 * 40, highest
        assert worker.status().groups[0].since_fetch < 1, "the group machinery has its turn"
        release.set()
        await desk.settled()
    assert count == [120]
