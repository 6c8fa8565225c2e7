"""Virtual time for workers on the in-process broker."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from octopus.testing import VirtualTime


@pytest.fixture
async def virtual_time() -> AsyncIterator[VirtualTime]:
    """Let time pass at once whenever nothing else can happen."""
    loop = asyncio.get_running_loop()
    with VirtualTime(loop.time()).installed(loop) as clock:
        yield clock
