"""A dead-letter topic that is deleted and made again with too small a limit, under a worker process whose events die."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from octopus.events import Record
from octopus.routing import Delivery
from octopus.testing.faults import ChildProcess, EmbeddedBroker, python_module
from octopus.transports.base import SIZE_LIMIT, Admin, Outgoing, Transport
from octopus.transports.opening import open_transport
from octopus.worker.exit_codes import ExitCode
from tests.worker.reads import Reads
from tests.worker.refusing import Plan

pytestmark = [pytest.mark.process, pytest.mark.slow]

DELIVERIES: list[Delivery] = ["at_least_once", "exactly_once"]
LIMIT, HEADERS = 5_000, 4_000


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def brokers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "kafka":
        yield request.getfixturevalue("kafka_cluster")
    else:
        async with EmbeddedBroker(tmp_path / "broker") as broker:
            yield broker.address


@pytest.fixture
def processes() -> Iterator[list[ChildProcess]]:
    """Worker processes, ended afterwards."""
    started: list[ChildProcess] = []
    yield started
    for process in started:
        process.kill()


class Bench:
    """The topics of a plan, and workers."""

    def __init__(self, plan: Plan, transport: Transport, admin: Admin, log: Path) -> None:
        self.plan = plan
        self.admin = admin
        self.dead_letters = f"{plan.name}.dead-letter"
        self.log = log
        self._transport = transport
        self._reads = Reads(transport, admin)
        self._numbers = itertools.count()

    def worker(self) -> ChildProcess:
        command = python_module("tests.worker.refusing", msgspec.json.encode(self.plan).decode())
        return ChildProcess(command, log=self.log).start()

    async def publish(self, count: int, size: int) -> set[int]:
        """Publish events, every other of them of about this size and with large headers; return their numbers."""
        numbers = [next(self._numbers) for _ in range(count)]
        producer = self._transport.producer()
        await producer.start()
        for number in numbers:
            large = number % 2
            value = msgspec.json.encode(f"{number}".ljust(size * large, "."))
            headers = [("own", secrets.token_bytes(HEADERS))] if large else []
            await producer.send(Outgoing(self.plan.name, value, headers=headers))
        await producer.stop()
        return {*numbers}

    async def found(self) -> dict[int, Record]:
        """Return the dead letters that are there by the numbers of their events; each is there once."""
        records = await self._reads(self.dead_letters)
        found = {int(msgspec.json.decode(record.value or b"").rstrip(".")): record for record in records}
        assert len(found) == len(records)
        return found

    async def until_found(self, numbers: set[int]) -> dict[int, Record]:
        async def all_there() -> bool:
            return numbers <= (await self.found()).keys()

        await self.until(all_there)
        return await self.found()

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(90):
            while not await condition():
                await asyncio.sleep(0.1)

    async def make_again(self) -> None:
        """Delete the dead-letter topic, and make it with a limit that is too small, before the worker does or after."""
        await self.admin.delete_topic(self.dead_letters)

        async def is_small() -> bool:
            if await self.admin.create_topic(self.dead_letters, config={SIZE_LIMIT: str(LIMIT)}):
                return True
            await self.admin.alter_topic(self.dead_letters, config={SIZE_LIMIT: str(LIMIT)})
            return True

        await self.until(is_small)


@asynccontextmanager
async def benching(plan: Plan, log: Path) -> AsyncIterator[Bench]:
    transport = open_transport(plan.brokers, metadata_max_age=0.5)
    admin = transport.admin()
    await admin.start()
    bench = Bench(plan, transport, admin, log)
    await admin.create_topic(plan.name)
    await admin.create_topic(bench.dead_letters)
    try:
        yield bench
    finally:
        await admin.stop()


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize(
    ("create", "size", "shed"),
    [
        pytest.param(True, 2 * LIMIT, None, id="the limit may be raised"),
        pytest.param(False, LIMIT - 2_000, b"headers", id="headers may be shed"),
    ],
)
async def test_a_dead_letter_topic_that_is_made_again_too_small_loses_nothing_and_stops_nothing(
    brokers: str,
    processes: list[ChildProcess],
    tmp_path: Path,
    delivery: Delivery,
    create: bool,
    size: int,
    shed: bytes,
) -> None:
    async with benching(Plan(brokers, delivery, create=create), tmp_path / "worker.log") as bench:
        processes.append(worker := bench.worker())
        await bench.until_found(await bench.publish(4, size))
        before = asyncio.create_task(bench.publish(20, size))  # these die meanwhile
        await bench.make_again()
        await before
        found = await bench.until_found(later := await bench.publish(20, size))
        worker.terminate()
        assert await worker.ended(60) == ExitCode.OK, worker.written()
        assert {dict(found[number].headers).get("octopus-dead-letter-shed") for number in later if number % 2} == {shed}
        assert {dict(found[number].headers).get("octopus-dead-letter-shed") for number in later if not number % 2} == {
            None
        }


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_events_that_do_not_fit_stop_the_worker_with_a_sentence_and_die_once_the_limit_is_raised(
    brokers: str, processes: list[ChildProcess], tmp_path: Path, delivery: Delivery
) -> None:
    async with benching(Plan(brokers, delivery, create=False), tmp_path / "worker.log") as bench:
        processes.append(worker := bench.worker())
        await bench.until_found(await bench.publish(4, 2 * LIMIT))
        before = asyncio.create_task(bench.publish(20, 2 * LIMIT))
        await bench.make_again()
        await before
        later = await bench.publish(20, 2 * LIMIT)
        assert await worker.ended(60) == ExitCode.PROCESSING_STOPPED, worker.written()
        assert f"{bench.dead_letters!r}" in worker.written()
        await bench.admin.alter_topic(bench.dead_letters, config={SIZE_LIMIT: str(10 * LIMIT)})
        processes.append(worker := bench.worker())
        await bench.until_found(later)
        worker.terminate()
        assert await worker.ended(60) == ExitCode.OK, worker.written()
