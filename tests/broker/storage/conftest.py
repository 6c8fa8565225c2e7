"""Directories for the tests of the broker's storage."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_builders import TEMPORARY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """An empty directory, in memory where the system offers that: these tests sync thousands of times."""
    with tempfile.TemporaryDirectory(dir=TEMPORARY) as directory:
        yield Path(directory)
