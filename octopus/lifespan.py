"""The lifespan of an app: entered before the first record, left after the last; where one fails is said."""

import inspect
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, cast

from octopus.errors import ConfigurationError


class Lifespan:
    """Enters and leaves a lifespan, and notes the file and line of its exceptions.

    Args:
        function: The user's.
        app: The lifespan's argument.
        name: The app's.
    """

    def __init__(self, function: Callable[[Any], AbstractAsyncContextManager[Any]], app: object, name: str) -> None:
        self._function = function
        self._app = app
        self._name = name

    async def __aenter__(self) -> Any:
        """Return the object that it yields."""
        try:
            self._context = _enterable(self._function(self._app))
            return await self._context.__aenter__()
        except Exception as error:
            self._note(error, "began")
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Leave it."""
        try:
            return await self._context.__aexit__(kind, error, trace)
        except Exception as raised:
            if raised is not error:
                self._note(raised, "ended")
            raise

    def _note(self, error: Exception, when: str) -> None:
        function = inspect.unwrap(self._function)
        code = getattr(function, "__code__", None)
        own = code.co_filename if code is not None else ""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        where = f"{own}:{frames[-1].lineno if frames else code.co_firstlineno}" if code is not None else repr(function)
        error.add_note(f"the lifespan of {self._name} failed as it {when}, at {where}")


def _enterable(context: Any) -> AbstractAsyncContextManager[Any]:
    if not hasattr(type(context), "__aenter__"):
        raise ConfigurationError(
            f"it gives a {type(context).__qualname__}, which `async with` cannot enter: write `async def` under "
            "@asynccontextmanager of contextlib."
        )
    return cast("AbstractAsyncContextManager[Any]", context)


def check_lifespan(function: Any) -> None:
    """Refuse a lifespan that cannot be entered, before any of it runs.

    Raises:
        ConfigurationError: It is a generator or coroutine function, or cannot be called.
    """
    name = getattr(function, "__qualname__", repr(function))
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"lifespan={name} is a generator: put @asynccontextmanager of contextlib above it.")
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"lifespan={name} never yields: a lifespan prepares, yields once, and tidies up, under @asynccontextmanager of "
            "contextlib."
        )
    if not callable(function):
        raise ConfigurationError(f"lifespan={function!r} cannot be called; it is a function of the app.")
