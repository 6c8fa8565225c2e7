"""An app that delivers exactly once, also as a process of its own, and the judge of what became visible.

python -m tests.worker.exactly_once PLAN
"""

import asyncio
import logging
import random
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiokafka
import msgspec

from octopus import Event, Octopus, Reject, RetryPolicy, config
from octopus.config import Settings
from octopus.events import TopicPartition
from octopus.testing.faults import die, end_with_parent
from octopus.testing.history import Event as HistoryEvent
from octopus.testing.history import Finished, Offered, Polled, Stored, check
from octopus.transports.base import Outgoing, TransactionalProducer, Transport
from octopus.transports.kafka import KafkaSettings, KafkaTransport
from octopus.transports.opening import connect
from octopus.worker import run_process

QUICK: dict[str, Any] = {
    "consumer": {"session_timeout": 6, "rebalance_timeout": 12, "metadata_max_age": 2},
    "producer": {"request_timeout": 2, "delivery_timeout": 8},
    "worker": {"transaction_interval": 0.05, "commit_interval": 0.2, "commit_timeout": 3, "revoke_budget": 1},
}
PARTITIONS = 3


class Plan(msgspec.Struct):
    """What a worker is told.

    Attributes:
        name: Of the run; topics and group begin with it.
        brokers: `host:port`.
        takes: Seconds that a handler takes, at most.
        mortality: How likely the worker is to die (SIGKILL) before or after each step of a transaction.
        settings: Over those of `QUICK`.
    """

    name: str
    brokers: str
    takes: float = 0.004
    mortality: float = 0.0
    settings: dict[str, Any] = {}


def app_of(plan: Plan) -> Octopus:
    """Return the app: an event fails at first if its number ends with 3, and is rejected if it ends with 7."""
    app = Octopus(plan.name)
    retry = RetryPolicy(attempts=0, backoff=0.02, maximum=0.1)

    @app.on(plan.name, to=f"{plan.name}.out", delivery="exactly_once", ordering="key", concurrency=8, retry=retry)
    async def handle(event: Event[int]) -> int:
        await app.publish(f"{plan.name}.side", event.value)
        await asyncio.sleep(random.uniform(0, plan.takes))
        match event.value % 10:
            case 3 if event.attempt == 1:
                raise ValueError(event.value)
            case 7:
                raise Reject("sevens are not wanted")
        return event.value

    return app


class MortalTransport:
    """Passes everything on; its process dies in the middle of some transactions."""

    def __init__(self, transport: Transport, mortality: float) -> None:
        self._transport = transport
        self._mortality = mortality

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def transactional_producer(self, transactional_id: str, **options: Any) -> Any:
        return _Mortal(self._transport.transactional_producer(transactional_id, **options), self._mortality)


class _Mortal:
    def __init__(self, producer: TransactionalProducer, mortality: float) -> None:
        self._producer = producer
        self._mortality = mortality

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._producer, name)

        async def perhaps_the_last(*arguments: Any) -> Any:
            if name != "start" and random.random() < self._mortality:
                after = asyncio.create_task(step(*arguments)) if random.random() < 0.5 else None
                await asyncio.sleep(random.uniform(0, 0.02))  # somewhere inside the step, or before it
                assert after is None or not after.done() or after.exception() is None
                die()
            return await step(*arguments)

        return perhaps_the_last


def settings_of(plan: Plan) -> config.Settings:
    """Return the settings of a worker."""
    return config.load(config.merge({"brokers": [plan.brokers], "topics": {"partitions": 2}}, QUICK, plan.settings))


class Judge:
    """Publishes numbers and says whether each led to its outputs once.

    Args:
        brokers: `host:port`.
    """

    def __init__(self, brokers: str) -> None:
        self.plan = Plan(f"once-{secrets.token_hex(4)}", brokers)
        self.published = 0
        self.group = f"{self.plan.name}.handle"
        self.transport = KafkaTransport(KafkaSettings(brokers=brokers, metadata_max_age=2.0))
        self._ends: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> "Judge":
        self.admin, self._producer = self.transport.admin(), self.transport.producer()
        await self.admin.start()
        await self._producer.start()
        await self.admin.create_topic(self.plan.name, partitions=PARTITIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self.admin.stop()

    async def publish(self, count: int) -> None:
        """Publish the next numbers, with few keys."""
        numbers = range(self.published, self.published + count)
        self.published += count
        published = await self._producer.send_many(
            [Outgoing(self.plan.name, b"%d" % number, b"k%d" % (number % 17)) for number in numbers]
        )
        for stored in published:
            place = TopicPartition(stored.topic, stored.partition)
            self._ends[place] = max(self._ends.get(place, 0), stored.offset + 1)

    async def committed(self) -> int:
        """How many records are committed."""
        found = await self.admin.group_offsets(self.group)
        return sum(commit.offset for commit in found.values() if commit.offset > 0)

    async def progressed(self, records: int, timeout: float = 60.0) -> None:
        """Wait until so many records are committed in all."""
        await self.until(lambda committed: committed >= records, timeout)

    async def until(self, condition: Callable[[int], bool], timeout: float = 60.0) -> None:
        """Wait for a number of committed records."""
        deadline = time.monotonic() + timeout
        while not condition(committed := await self.committed()):
            assert time.monotonic() < deadline, f"{committed} of {self.published} are committed after {timeout:g} s"
            await asyncio.sleep(0.02)

    async def verdict(self, timeout: float = 60.0) -> None:
        """Wait until everything is committed; then every number must have its outputs exactly once.

        Raises:
            AssertionError: Something is missing, or there twice, or was visible although it was aborted.
        """
        await self.progressed(sum(self._ends.values()), timeout)
        everything = range(self.published)
        kept = [number for number in everything if number % 10 != 7]
        sevens = [number for number in everything if number % 10 == 7]
        expected = {"out": kept, "side": kept, "dead-letter": sevens}
        for suffix, numbers in expected.items():
            topic = f"{self.plan.name}.{suffix}"
            history: list[HistoryEvent] = [Offered(time=0.0, id=str(number), topic=topic) for number in numbers]
            seen = await self.read_committed(topic) if numbers else {}
            for place, records in seen.items():
                found = tuple((offset, value.decode()) for offset, value in records)
                history.append(Polled(time=1.0, reader="judge", at=place, records=found))
                for offset, name in found:
                    history.append(Stored(time=0.5, id=name, at=place, offset=offset))
                    history.append(Finished(time=1.0, worker="judge", at=place, offset=offset, id=name, run=0))
            report = check(history)
            assert not report.anomalies, f"{topic}: {[*map(str, report.anomalies[:5])]}"
            values = sorted(int(value) for records in seen.values() for _, value in records)
            assert values == numbers, f"{topic}: missing {sorted({*numbers} - {*values})[:10]}, {len(values)} seen"

    async def read_committed(self, topic: str) -> dict[TopicPartition, list[tuple[int, bytes]]]:
        """Read a whole topic as a reader of committed records does, past everything that was aborted."""
        count = next(info.partitions for info in await self.admin.topics() if info.name == topic)
        places = [TopicPartition(topic, number) for number in range(count)]
        ends = await self.admin.offsets(places, "latest")
        reader: Any = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self.plan.brokers, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        seen: dict[TopicPartition, list[tuple[int, bytes]]] = {place: [] for place in places}
        try:
            await reader.start()
            targets = {place: aiokafka.TopicPartition(*place) for place in places}
            reader.assign([*targets.values()])
            deadline = time.monotonic() + 20
            while any([await reader.position(target) < ends[place] for place, target in targets.items()]):
                assert time.monotonic() < deadline, f"a transaction of {topic} stays open"
                for target, records in (await reader.getmany(timeout_ms=100)).items():
                    seen[TopicPartition(*target)] += [(record.offset, record.value) for record in records]
        finally:
            await reader.stop()
        return seen


def main(arguments: Sequence[str]) -> int:
    """Run a worker until it is stopped."""
    end_with_parent()
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO)
    plan = msgspec.json.decode(arguments[0], type=Plan)

    def mortal(settings: Settings, **options: Any) -> Any:
        return MortalTransport(connect(settings, **options), plan.mortality)

    return int(run_process(app_of(plan), settings_of(plan), connect=mortal))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
