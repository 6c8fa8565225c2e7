"""The brokers of a soak with their network, and what can happen to both."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiokafka.errors import KafkaError

from octopus.events import TopicPartition
from octopus.testing.faults import EmbeddedBroker, TcpProxy
from octopus.worker.transactions import transactional_id
from tests.faults.trial import Trial
from tests.support.kafka_cluster import KafkaCluster

PARTITIONS = 6
"""Of the topic that is read."""

HELD = 1000
"""Effects that a fault of broker or network may repeat: what all workers hold, at the settings and the rate of a soak."""

Action = Callable[[], Awaitable[None]]


class Networks:
    """What can happen to the connections to one broker, or to several.

    Args:
        proxies: One before each.
        chance: Chooses.
        disturb: Told what happens.
    """

    def __init__(self, proxies: Sequence[TcpProxy], chance: random.Random, disturb: Callable[[str], None]) -> None:
        self._proxies = proxies
        self._chance = chance
        self._disturb = disturb

    def faults(self) -> dict[str, Action]:
        return {"cut network": self._cut, "slow network": self._slow, "reset connections": self._reset}

    def _some(self) -> Sequence[TcpProxy]:
        return self._chance.choice([self._proxies, *([proxy] for proxy in self._proxies)])

    async def _cut(self) -> None:
        self._disturb("cut network")
        some, directions = self._some(), self._chance.choice([(), ("to_server",), ("to_client",)])
        try:
            for proxy in some:
                proxy.cut(*directions)
            await asyncio.sleep(self._chance.uniform(0.5, 6))
        finally:
            self._heal()

    async def _slow(self) -> None:
        self._disturb("slow network")
        try:
            for proxy in self._some():
                proxy.delay, proxy.jitter, proxy.loss = self._chance.uniform(0, 0.15), 0.02, 0.02
            await asyncio.sleep(self._chance.uniform(2, 8))
        finally:
            self._heal()

    async def _reset(self) -> None:
        self._disturb("reset connections")
        for proxy in self._some():
            proxy.reset()

    def _heal(self) -> None:
        for proxy in self._proxies:
            proxy.heal()


class Surroundings(NamedTuple):
    """A broker or a cluster with what can happen to it. What a fault breaks it mends, also when it is interrupted.

    Attributes:
        address: For clients.
        faults: By name.
        look: Raises an AssertionError when a broker is down that no fault has taken down.
    """

    address: str
    faults: dict[str, Action]
    look: Callable[[], None]


@asynccontextmanager
async def embedded(directory: Path, chance: random.Random, trial: Callable[[], Trial]) -> AsyncIterator[Surroundings]:
    """An embedded broker behind a bad network, and what can happen to both."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy("127.0.0.1:1", seed=chance.randrange(2**31)))
        broker = await stack.enter_async_context(EmbeddedBroker(directory / "broker", advertised_port=proxy.port))
        proxy.target = broker.address

        def disturb(what: str) -> None:
            trial().disturb(what, excuses=HELD)

        async def kill() -> None:
            disturb("kill broker")
            broker.kill()
            try:
                await asyncio.sleep(chance.choice([0, 0, 1, 5]))
            finally:
                await broker.start()

        async def freeze() -> None:
            disturb("freeze broker")
            broker.process.freeze()
            try:
                await asyncio.sleep(chance.uniform(0.5, 6))
            finally:
                broker.process.thaw()

        def look() -> None:
            ended = f"the broker ended by itself with {broker.process.exit_code}"
            assert broker.process.is_running, f"{ended}: {broker.process.written()[-2000:]}"

        network = Networks([proxy], chance, disturb)
        faults: dict[str, Action] = {"kill broker": kill, "freeze broker": freeze, **network.faults()}
        yield Surroundings(proxy.address, faults, look)


@asynccontextmanager
async def kafka(directory: Path, chance: random.Random, trial: Callable[[], Trial]) -> AsyncIterator[Surroundings]:
    """Three genuine brokers behind a bad network, of which one at a time is killed or frozen.

    What they lead and coordinate moves to another one then, and some seconds later, without a fault, back again.
    """
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(TcpProxy("127.0.0.1:1", seed=chance.randrange(2**31))) for _ in range(3)
        ]
        cluster = KafkaCluster(
            brokers=3,
            directory=directory / "kafka",
            advertised=[proxy.port for proxy in proxies],
            properties={"leader.imbalance.check.interval.seconds": "5"},
        )
        for proxy, target in zip(proxies, cluster.listening, strict=True):
            proxy.target = target
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        await to_its_end(cluster.start)

        def disturb(what: str, who: str = "") -> None:
            trial().disturb(what, who, excuses=HELD)

        async def kill(what: str = "kill broker", node: int | None = None) -> None:
            node = chance.choice(cluster.nodes) if node is None else node
            disturb(what, f"node {node}")
            try:
                await to_its_end(cluster.kill, node)
                await asyncio.sleep(chance.uniform(0, 5))
            finally:
                await to_its_end(cluster.restart, node)

        async def kill_coordinator() -> None:
            with contextlib.suppress(KafkaError, TimeoutError):  # then it is somebody else's turn
                async with asyncio.timeout(5):
                    node = await trial().coordinator()
                await kill("kill the group's coordinator", node)

        async def kill_transaction_coordinator() -> None:
            at = TopicPartition(trial().topic, chance.randrange(PARTITIONS))
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(5):
                    node = await trial().coordinator(transactional_id(trial().group, at))
                await kill("kill a transaction's coordinator", node)

        async def freeze() -> None:
            node = chance.choice(cluster.nodes)
            disturb("freeze broker", f"node {node}")
            cluster.pause(node)
            try:
                await asyncio.sleep(chance.uniform(1, 10))
            finally:
                cluster.resume(node)
            await to_its_end(cluster.wait_until_ready, 90)

        def look() -> None:
            for node in cluster.nodes:
                assert cluster.is_running(node), f"node {node} ended by itself: {cluster.last_log(node)}"

        faults: dict[str, Action] = {
            "kill broker": kill,
            "kill the group's coordinator": kill_coordinator,
            "kill a transaction's coordinator": kill_transaction_coordinator,
            "freeze broker": freeze,
            **Networks(proxies, chance, disturb).faults(),
        }
        yield Surroundings(cluster.bootstrap, faults, look)


async def to_its_end(work: Callable[..., object], *arguments: object) -> None:
    """Do blocking work in a thread, and wait for its end also when we are cancelled.

    A node that is being started would run for ever if the cluster were stopped meanwhile.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(working)
    finally:
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([working])
