"""The lifespan of an app under the test client."""

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import msgspec
import pytest

from octopus import Octopus
from octopus.testing import TestClient


class File(msgspec.Struct):
    path: str
    size: int = 0


async def test_the_lifespan_is_entered_before_and_left_after() -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        app.state.scale = 3
        steps.append("enter")
        yield
        steps.append("leave")

    app = Octopus("beamline", lifespan=lifespan)

    @app.on("readings")
    async def scale(value: int) -> None:
        steps.append(f"handle {value * app.state.scale}")

    async with TestClient(app) as client:
        await client.publish("readings", 2)
    assert steps == ["enter", "handle 6", "leave"]


def test_a_lifespan_may_hold_a_task_group_and_set_context_variables() -> None:
    session: contextvars.ContextVar[str] = contextvars.ContextVar("session", default="none")
    seen = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        session.set("open")
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.01)
            yield

    app = Octopus("beamline", lifespan=lifespan)

    @app.on("readings")
    async def look(value: int) -> None:
        seen.append(session.get())

    with TestClient(app) as client:
        client.publish("readings", 2)
    assert seen == ["open"]


async def test_handlers_that_still_run_end_before_the_lifespan() -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        yield
        steps.append("leave")

    app = Octopus("beamline", lifespan=lifespan)

    @app.on("files")
    async def slow(file: File) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            steps.append("cancelled")

    async with TestClient(app) as client:
        await client.publish("files", File("/a"), settle=False)
        await client.advance(1)
    assert steps == ["cancelled", "leave"]


def test_a_lifespan_that_fails_fails_the_test() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        raise OSError("no instrument")
        yield

    with pytest.raises(OSError, match="no instrument"), TestClient(Octopus("beamline", lifespan=lifespan)):
        pass


def _failing(step: str) -> Octopus:
    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        beside = asyncio.create_task(asyncio.sleep(3600))
        try:
            if step == "begins":
                raise OSError("no instrument")
            yield
            raise OSError("no instrument")
        finally:
            beside.set_name("beside")  # nobody ends it

    return Octopus("beamline", lifespan=lifespan)


@pytest.mark.parametrize("step", ["begins", "ends"])
def test_no_task_is_left_in_a_test_whose_lifespan_fails(step: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="no instrument"), TestClient(_failing(step)):
        pass
    gc.collect()
    assert "was destroyed" not in caplog.text
