"""A broker is started once, found by its settings, and stopped."""

import asyncio
from pathlib import Path

import pytest

from octopus import config
from octopus.config import Settings
from octopus.errors import ConfigurationError, OperationFailed
from octopus.operations.brokers import (
    broker_arguments,
    find_broker,
    meant_broker,
    plan_start,
    start_broker,
    stop_broker,
)


def settings_of(**broker: object) -> Settings:
    return config.load({"broker": broker})


@pytest.mark.process
async def test_a_broker_that_runs_is_found_and_not_started_again(tmp_path: Path) -> None:
    settings = settings_of(directory=str(tmp_path / "records"))
    assert plan_start(settings) is None
    running = await start_broker(settings)
    try:
        assert plan_start(settings) == find_broker(settings) == find_broker(settings, port=running.port) == running
        with pytest.raises(OperationFailed, match=f"runs already, at {running.address}. Stop it first"):
            plan_start(settings, port=1)
        with pytest.raises(OperationFailed, match="No such embedded broker runs"):
            find_broker(settings, tmp_path)
    finally:
        await stop_broker(running)
    assert await asyncio.to_thread(meant_broker, settings) is None


def test_a_broker_that_no_client_could_find_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="could not be found by any client"):
        plan_start(settings_of(port=0, directory=None))


def test_durations_of_settings_are_milliseconds_for_the_broker(tmp_path: Path) -> None:
    given = settings_of(directory=str(tmp_path), retention=1.5, retention_bytes=None)
    directory, _, storage = broker_arguments(given)
    assert directory == tmp_path
    assert storage.topic_defaults == {"retention.ms": "1500", "retention.bytes": "-1"}
