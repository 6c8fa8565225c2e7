"""Functions and attributes of a library as we need them, without changing anything in it."""

import functools
from operator import attrgetter
from types import FunctionType
from typing import Any


def seeing(function: Any, **names: Any) -> Any:
    """Return a copy of a function to which some of the global names that it uses mean something else.

    Raises:
        AttributeError: It uses no such name.
    """
    if unknown := names.keys() - {*function.__code__.co_names}:
        raise AttributeError(f"{function.__qualname__} does not use {', '.join(sorted(unknown))}")
    seen = FunctionType(
        function.__code__,
        function.__globals__ | names,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    seen.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(seen, function)


def inner(name: str) -> Any:
    """Return a property that reads a private attribute."""
    return property(attrgetter(name))
