"""The ways in which a handler may be run, for tests that are a family."""

from collections.abc import Sequence

import pytest

MODES = ("partition", "key", "none", "batch")
"""The orderings, and handlers of batches."""

FREE = ("key", "none")
"""Modes in which a record that hangs holds up nothing behind it, as long as keys differ."""


def across(*quick: str, modes: Sequence[str] = MODES) -> pytest.MarkDecorator:
    """Give a test the argument `mode`, in turn each of `modes`; all but the `quick` ones count as slow."""
    return pytest.mark.parametrize(
        "mode", [mode if mode in quick else pytest.param(mode, marks=pytest.mark.slow) for mode in modes]
    )
