"""Brokers for trials: an embedded one for each, or the genuine Kafka that all tests share."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from octopus.testing.faults import EmbeddedBroker
from tests.faults.trial import Trial

GENUINE = pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])
KAFKA_SETTINGS = {"consumer": {"session_timeout": 6, "rebalance_timeout": 12}}


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """The embedded broker, in a process of its own, on a directory of its own."""
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture(params=["embedded", GENUINE])
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Trial]:
    """Begins a trial on either broker: `async with begin(ordering="key") as trial`."""
    if request.param == "kafka":
        address = request.getfixturevalue("kafka_cluster")
        return partial(Trial, tmp_path, address, settings=KAFKA_SETTINGS)
    broker = request.getfixturevalue("broker")
    return partial(Trial, tmp_path, broker.address)
