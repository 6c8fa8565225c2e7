"""Members that come, go, are cut off, expelled and fail in any order: every output is visible exactly once."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus import Event, Octopus, Reject, RetryPolicy, config
from octopus.errors import ConnectionFailed, OctopusError, PartitionLost
from octopus.events import Published, TopicPartition
from octopus.testing import VirtualTimeLoop
from octopus.transports.base import Commit, Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.memory.transactions import MemoryTransactionalProducer
from octopus.worker import Worker

GROUP = "app.handle"
SETTINGS: dict[str, Any] = {
    "topics": {"partitions": 2},
    "worker": {"transaction_interval": 0.05, "commit_interval": 0.3, "revoke_budget": 0.5, "commit_timeout": 1.0},
}


class Line(MemoryTransport):
    """A way to the broker with delays everywhere, which can be cut: then whoever is behind it can do nothing more.

    Args:
        broker: The common one.
        chance: Chooses the delays.
    """

    def __init__(self, broker: MemoryBroker, chance: random.Random) -> None:
        super().__init__(broker)
        self._chance = chance
        self.is_cut = False

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    async def pass_on(self) -> None:
        """Take a while, as a network does."""
        await asyncio.sleep(self._chance.choice([0, 0, 0.001, 0.01, 0.2]))
        if self.is_cut:
            raise ConnectionFailed("cut off")

    def transactional_producer(self, transactional_id: str, **_options: Any) -> "SlowProducer":
        return SlowProducer(self, transactional_id)


class SlowProducer(MemoryTransactionalProducer):
    """Takes a while before and after every step, so that anything may happen in between."""

    def __init__(self, line: Line, transactional_id: str) -> None:
        super().__init__(line.broker, transactional_id)
        self._line = line

    async def start(self) -> None:
        await self._line.pass_on()
        await super().start()
        await self._line.pass_on()

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        await self._line.pass_on()
        published = await super().send_many(messages)
        await self._line.pass_on()
        return published

    async def send_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        await self._line.pass_on()
        await super().send_offsets(group, offsets)
        await self._line.pass_on()

    async def commit(self) -> None:
        await self._line.pass_on()
        await super().commit()
        await self._line.pass_on()


class Field:
    """A broker, members on lines of their own, and what happens to them."""

    def __init__(self, seed: int, ordering: Literal["partition", "key", "none"]) -> None:
        self.chance = random.Random(seed)
        self.broker = MemoryBroker(clock=asyncio.get_running_loop().time, auto_create=2)
        self.broker.create_topic("t", partitions=3)
        self.published = 0
        self._ordering = ordering
        self._members: list[tuple[Line, AsyncExitStack, Worker]] = []
        self._cut: list[AsyncExitStack] = []

    def publish(self, count: int) -> None:
        numbers = range(self.published, self.published + count)
        self.broker.append([Outgoing("t", b"%d" % number, b"k%d" % (number % 5)) for number in numbers])
        self.published += count

    async def start(self) -> None:
        line, stack = Line(self.broker, self.chance), AsyncExitStack()
        worker = Worker(self._app(), config.load(SETTINGS), transport=line)
        await stack.enter_async_context(worker)
        self._members.append((line, stack, worker))

    async def stop(self) -> None:
        if len(self._members) > 1:
            _, stack, _ = self._members.pop(0)
            await stack.aclose()

    async def cut(self) -> None:
        """Cut a member off in the middle of whatever it does, and let the group notice."""
        if len(self._members) > 1:
            line, stack, _ = self._members.pop(0)
            line.is_cut = True
            self._cut.append(stack)
            await self.expel()

    async def expel(self) -> None:
        """Throw everybody out: they lose their partitions unasked, and come again."""
        self.broker.expel(GROUP)

    async def fail(self, moment: str, error: OctopusError) -> None:
        self.broker.faults.fail_next(moment, error, times=self.chance.randrange(1, 3))

    async def finish(self) -> None:
        """Let the rest be done, and check."""
        for *_, worker in self._members:
            assert worker.failures == []
        async with asyncio.timeout(300):
            while sum(commit.offset for commit in self.broker.group(GROUP).offsets.values()) < self.published:
                await asyncio.sleep(0.1)
        for _, stack, _ in self._members:
            await stack.aclose()
        for stack in self._cut:
            await stack.aclose()
        kept = [number for number in range(self.published) if number % 10 != 7]
        assert self._visible("out") == kept
        assert self._visible("side") == kept
        assert self._visible("t.dead-letter") == [number for number in range(self.published) if number % 10 == 7]

    def _visible(self, topic: str) -> list[int]:
        logs = self.broker.topics.get(topic, [])
        assert not any(log.open for log in logs), "a transaction stays open"
        return sorted(msgspec.json.decode(record.value or b"") for log in logs for record in log.read(0, 10_000)[0])

    def _app(self) -> Octopus:
        app, retry, chance = Octopus("app"), RetryPolicy(attempts=0, backoff=0.05, maximum=0.5), self.chance

        @app.on("t", to="out", delivery="exactly_once", ordering=self._ordering, concurrency=8, retry=retry)
        async def handle(event: Event[int]) -> int:
            await app.publish("side", event.value)
            await asyncio.sleep(chance.choice([0, 0.01, 0.1, 1.0]))
            match event.value % 10:
                case 3 if chance.random() < 0.5:
                    raise ValueError(event.value)
                case 7:
                    raise Reject("no sevens")
            return event.value

        return app


MOMENTS = st.sampled_from(["begin", "send_offsets", "end", "ended", "fetch", "committed", "commit"])
ERRORS = st.sampled_from([ConnectionFailed("away"), PartitionLost("fenced")])
STEPS = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.01, 0.06, 0.3, 2.0])),
    st.tuples(st.just("publish"), st.integers(1, 25)),
    st.tuples(st.sampled_from(["start", "stop", "cut", "expel"])),
    st.tuples(st.just("fail"), MOMENTS, ERRORS),
)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=3, max_size=14),
    seed=st.integers(0, 2**16),
    ordering=st.sampled_from(["partition", "key", "none"]),
)
def test_no_schedule_repeats_or_loses_an_output(
    steps: list[tuple[Any, ...]], seed: int, ordering: Literal["partition", "key", "none"]
) -> None:
    async def run() -> None:
        field = Field(seed, ordering)
        field.publish(10)
        await field.start()
        for name, *arguments in steps:
            match name:
                case "pass":
                    await asyncio.sleep(*arguments)
                case "publish":
                    field.publish(*arguments)
                case _:
                    await getattr(field, name)(*arguments)
            await asyncio.sleep(field.chance.choice([0, 0.005, 0.05]))
        await field.finish()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
        loop.run(run())
