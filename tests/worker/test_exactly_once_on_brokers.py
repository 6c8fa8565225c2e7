"""Outputs that are visible exactly once, on the embedded broker and on Apache Kafka."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from octopus import Octopus
from octopus.errors import PartitionLost
from octopus.transports import open_transport
from octopus.transports.base import Commit, Outgoing, Transport
from octopus.transports.embedded import EmbeddedTransport
from octopus.worker import Worker
from tests.worker.exactly_once import Judge, app_of, settings_of

KAFKA = pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedTransport]:
    """An embedded broker in this process, which takes faults on order."""
    transport = EmbeddedTransport(mode="thread")
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture(params=["embedded", KAFKA])
async def judge(request: pytest.FixtureRequest) -> AsyncIterator[Judge]:
    transport = EmbeddedTransport(mode="thread")
    if request.param == "kafka":
        address = request.getfixturevalue("kafka_cluster")
    else:
        await transport.open()
        address = transport.address
    async with Judge(address) as judge:
        yield judge
    await transport.close()


@asynccontextmanager
async def working(judge: Judge, *, threaded: bool = False) -> AsyncIterator[Worker]:
    async with Worker(app_of(judge.plan), settings_of(judge.plan), threaded=threaded) as worker:
        yield worker


@pytest.mark.parametrize("threaded", [False, True], ids=["one loop", "threaded"])
async def test_retries_and_dead_letters_are_inside_the_transactions(judge: Judge, threaded: bool) -> None:
    await judge.publish(100)
    async with working(judge, threaded=threaded) as worker:
        await judge.publish(100)
        await worker.caught_up()
        assert worker.failures == []
        assert worker.status().groups[0].dead == 20
        await judge.verdict()


async def test_members_that_come_and_go_under_load_repeat_nothing(judge: Judge) -> None:
    judge.plan.takes = 0.02
    await judge.publish(600)
    async with working(judge):
        await judge.progressed(50)
        async with working(judge):
            await judge.progressed(200)
        await judge.publish(100)
        await judge.progressed(400)
    async with working(judge) as last:
        await judge.verdict()
        assert last.failures == []
