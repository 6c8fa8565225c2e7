"""A broker of their own for trials, and a quick one to share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from octopus.testing.faults import EmbeddedBroker


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """The embedded broker, in a process of its own, on a directory of its own."""
    async with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker
