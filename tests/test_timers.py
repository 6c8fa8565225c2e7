"""Timers: whatever a call does to its task, the next one comes, and the end comes when it is wanted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from octopus import Octopus
from octopus.testing import TestClient, VirtualTime
from tests.staged import working
from tests.worker.conftest import virtual_time as virtual_time


@contextlib.asynccontextmanager
async def driven(driver: str, app: Octopus) -> AsyncIterator[None]:
    """Run an app in virtual time, which ends with the app."""
    if driver == "client":
        async with TestClient(app):
            yield
    else:
        loop = asyncio.get_running_loop()
        with VirtualTime(loop.time()).installed(loop):
            async with working(app):
                yield


async def cancels_its_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def raises_cancelled_error() -> None:
    raise asyncio.CancelledError


async def cancels_and_returns() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("naughty", [cancels_its_task, raises_cancelled_error], ids=lambda each: each.__name__)
async def test_a_call_that_cancels_itself_has_failed_and_the_next_one_comes(
    naughty: Callable[[], Awaitable[None]], virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, calls = Octopus("app"), []

    @app.every(10)
    async def tick() -> None:
        calls.append(1)
        await naughty()

    async with working(app):
        await asyncio.sleep(35)
    assert len(calls) == 3
    assert caplog.text.count("timer tick failed; it is called again in 10 s") == 3


async def test_a_test_client_raises_that_a_call_cancelled_itself() -> None:
    app = Octopus("app")
    app.every(10)(cancels_its_task)
    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="CancelledError"):
            await client.advance(15)


async def test_a_request_that_comes_too_late_for_its_call_reaches_no_other(virtual_time: VirtualTime) -> None:
    app, calls = Octopus("app"), []

    @app.every(10)
    async def tick() -> None:
        calls.append(1)
        await cancels_and_returns()

    async with working(app):
        await asyncio.sleep(35)
    assert len(calls) == 3


@pytest.mark.parametrize("driver", ["worker", "client"])
async def test_a_call_that_swallows_its_cancellation_ends_with_the_app(driver: str) -> None:
    app, calls = Octopus("app"), []

    @app.every(10)
    async def tick() -> None:
        calls.append("begun")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        calls.append("ended")

    tasks = asyncio.all_tasks()
    async with driven(driver, app):
        await asyncio.sleep(15)
    assert calls == ["begun", "ended"]
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("driver", ["worker", "client"])
async def test_a_call_that_swallows_every_cancellation_is_not_waited_for_long(
    driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, enough = Octopus("app"), []

    @app.every(10)
    async def tick() -> None:
        while not enough:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    tasks = asyncio.all_tasks()
    async with driven(driver, app):
        await asyncio.sleep(15)
    assert "timer tick does not end although it was cancelled" in caplog.text
    enough.append(True)  # it must not outlive this test
    for task in asyncio.all_tasks() - tasks:
        task.cancel()
    await asyncio.wait(asyncio.all_tasks() - tasks)
