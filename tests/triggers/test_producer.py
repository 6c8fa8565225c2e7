"""What a function publishes with, while a broker is away."""

import asyncio
from pathlib import Path

import pytest

from octopus.config.settings import Settings
from octopus.testing.faults import EmbeddedBroker
from octopus.transports.base import Outgoing
from octopus.triggers.aws.producer import LazyProducer
from tests.staged import until

pytestmark = pytest.mark.process


async def test_a_function_that_publishes_says_once_that_an_outage_began_and_once_that_it_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "answer" in each.getMessage()]

    async with EmbeddedBroker(tmp_path / "broker") as broker:
        producer = LazyProducer(Settings(brokers=(broker.address,)), "function")
        await producer.send(Outgoing("readings", b"1"))
        broker.kill()
        sending = asyncio.create_task(producer.send(Outgoing("readings", b"2")))
        await until(lambda: len(said()) == 1, 60)
        await broker.start()
        await sending
        await until(lambda: len(said()) == 2, 60)
        await producer.stop()
    begun, ended = said()
    assert "does not answer" in begun
    assert "answers again" in ended
