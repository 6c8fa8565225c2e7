"""How far an operation has come, for whoever wants to know."""

from collections.abc import Callable

Advance = Callable[[int], None]
"""Takes how much more is done, in whatever the operation counts: events, topics."""


def unseen(_count: int) -> None:
    """Tell nobody."""
