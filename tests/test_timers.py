"""Timers: whatever a call does to its task, the next one comes, and the end comes when it is wanted."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

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


class Ticker:
    """Counts its calls, in each of the ways in which a timer's function may be written."""

    def __init__(self) -> None:
        self.calls = 0

    def sync(self) -> None:
        self.calls += 1

    async def method(self) -> None:
        await asyncio.sleep(0)
        self.calls += 1

    async def __call__(self) -> None:
        await self.method()


class SynchronousTicker(Ticker):
    def __call__(self) -> None:  # type: ignore[override]
        self.sync()


def function_of(ticker: Ticker) -> Callable[[], Awaitable[None]]:
    async def tick() -> None:
        await ticker.method()

    return tick


KINDS: dict[str, Callable[[Ticker], Callable[[], Any]]] = {
    "function": function_of,
    "sync function": lambda ticker: lambda: ticker.sync(),
    "sync function that returns an awaitable": lambda ticker: lambda: ticker.method(),
    "method": lambda ticker: ticker.method,
    "sync method": lambda ticker: ticker.sync,
    "partial": lambda ticker: functools.partial(Ticker.method, ticker),
    "partial of an object": functools.partial,
    "object": lambda ticker: ticker,
    "sync object": lambda ticker: ticker,
}


@pytest.mark.parametrize("driver", ["worker", "client"])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_driver_calls_whatever_can_be_called(kind: str, driver: str) -> None:
    app, ticker = Octopus("app"), SynchronousTicker() if kind == "sync object" else Ticker()
    app.every(10, name="tick")(KINDS[kind](ticker))
    async with driven(driver, app):
        await asyncio.sleep(25)
        assert ticker.calls == 2


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
