"""Groups whose outputs stay on their way, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from octopus import Octopus
from octopus.testing import VirtualTime
from tests.pipeline.aloft import Aloft, Make


@pytest.fixture
async def virtual_time() -> AsyncIterator[VirtualTime]:
    with VirtualTime().installed(asyncio.get_running_loop()) as clock:
        yield clock


@pytest.fixture
async def aloft(virtual_time: VirtualTime) -> AsyncIterator[Make]:
    made: list[Aloft] = []

    def make(app: Octopus, **options: Any) -> Aloft:
        made.append(Aloft(app, **options))
        return made[-1]

    yield make
    for each in made:
        await each.close()
