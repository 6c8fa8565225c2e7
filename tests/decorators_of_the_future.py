"""Decorators of a module whose annotations are texts, for test_decorated_handlers.py: its names are not those of their users."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Any

from octopus.events import Event as Envelope


def unwrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that says itself what it takes, and keeps its own annotations."""

    @wraps(function, assigned=("__name__", "__qualname__"))
    async def unwrapped(event: Envelope[int]) -> Any:
        return await function(event.value, "database")

    return unwrapped


class Injecting:
    """A decorator that is a class, whose annotations say nothing of the handler's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.function = function

    async def __call__(self, *arguments: Any) -> Any:
        """Give the handler its database."""
        return await self.function(*arguments, "database")
