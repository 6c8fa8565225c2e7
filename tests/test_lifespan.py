"""Lifespans: what they yield is the state, and where one fails is said."""

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from octopus import Octopus
from octopus.errors import ConfigurationError
from octopus.testing import TestClient


class State(NamedTuple):
    scale: int


async def test_what_the_lifespan_yields_is_the_state_while_it_lasts() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[State]:
        yield State(3)

    app, seen = Octopus("lab", lifespan=lifespan), []
    before = app.state

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value * app.state.scale)

    async with TestClient(app) as client:
        await client.publish("t", 2)
    assert seen == [6]
    assert app.state is before


async def test_a_lifespan_that_yields_nothing_leaves_the_state_as_it_is() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        app.state.scale = 2
        yield

    app = Octopus("lab", lifespan=lifespan)
    async with TestClient(app):
        assert app.state.scale == 2


@contextlib.asynccontextmanager
async def fails_as_it_begins(app: Octopus) -> AsyncIterator[None]:
    raise OSError("no database")
    yield


@contextlib.asynccontextmanager
async def fails_as_it_ends(app: Octopus) -> AsyncIterator[None]:
    yield
    raise OSError("no database")


@contextlib.contextmanager
def not_async(app: Octopus) -> Iterator[None]:
    yield


FAILING = {
    "as it begins": (fails_as_it_begins, OSError, "the lifespan of lab failed as it began, at {file}:{line}", 2),
    "as it ends": (fails_as_it_ends, OSError, "the lifespan of lab failed as it ended, at {file}:{line}", 3),
    "not async": (not_async, ConfigurationError, "the lifespan of lab failed as it began, at {file}:{line}", 0),
}


@pytest.mark.parametrize(("lifespan", "kind", "note", "line"), FAILING.values(), ids=FAILING)
async def test_a_lifespan_that_raises_says_in_which_file_and_line(lifespan, kind, note, line) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind) as raised:
        async with TestClient(Octopus("lab", lifespan=lifespan)):
            pass
    first = lifespan.__wrapped__.__code__.co_firstlineno
    assert note.format(file=__file__, line=first + line) in raised.value.__notes__


async def test_what_a_test_raises_is_not_blamed_on_the_lifespan() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        yield

    with pytest.raises(OSError, match="mine") as raised:
        async with TestClient(Octopus("lab", lifespan=lifespan)):
            raise OSError("mine")
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.process
def test_octopus_run_says_it_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from octopus import Octopus\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    raise OSError('no database')\n"
        "    yield\n"
        "app = Octopus('lab', lifespan=lifespan)\n"
        "@app.on('t')\n"
        "async def handle(value: int) -> None: ...\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "octopus", "run", "lab.py:app", "--drain", "--brokers", "memory://lab"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    said = " ".join(ended.stderr.split())
    assert f"error: the lifespan of lab failed as it began, at {tmp_path}/lab.py:5: OSError: no database." in said
