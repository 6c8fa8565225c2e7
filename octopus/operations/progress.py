"""How far an operation has come, told to its caller."""

from collections.abc import Callable

Advance = Callable[[int], None]
"""Takes how much more is done, in the operation's own units: events, topics."""


def unseen(_: object) -> None:
    """Show no progress."""
