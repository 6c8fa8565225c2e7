"""Handlers inside decorators that give arguments themselves are called as what they are, whatever the decorator is made of."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus
from octopus.errors import ConfigurationError
from octopus.signatures import inspect_handler
from octopus.testing import DONE, TestClient
from tests.decorators_of_the_future import Injecting, unwrapping

DATABASE = "database"


class File(msgspec.Struct):
    path: str


def asynchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(file):  # type: ignore[no-untyped-def]
        return await function(file, DATABASE)

    return inner


def sync_around_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(file):  # type: ignore[no-untyped-def]
        return function(file, DATABASE)

    return inner


def by_keyword(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(*arguments: Any, **options: Any) -> Any:
        return await function(*arguments, **options, database=DATABASE)

    return inner


def by_option(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(*arguments: Any, database: str) -> Any:
        return await function(*arguments, database)

    return inner


def with_an_argument(database: str) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inner(file, *, again=False):  # type: ignore[no-untyped-def]
            return await function(file, database)

        return inner

    return decorate


class OfAClass:
    """A decorator that is an object, also above a method."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, instance: object, owner: type) -> Any:
        return functools.partial(self, instance) if instance is not None else self

    async def __call__(self, *arguments):  # type: ignore[no-untyped-def]
        return await self.function(*arguments, DATABASE)


class Named:
    """A decorator that is an object whose parameter has the name of the handler's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    async def __call__(self, file):  # type: ignore[no-untyped-def]
        return await self.function(DATABASE, file)


def threaded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(file: File) -> Any:
        return function(file, DATABASE)

    return inner


seen: list[Any] = []


async def store(file: File, database: str) -> None:
    seen.append((file, database))


def store_in_a_thread(file: File, database: str) -> None:
    seen.append((file, database, threading.current_thread() is threading.main_thread()))


async def database_first(database: str, file: File) -> None:
    seen.append((file, database))


async def options_first(level: int, file: File, database: str) -> None:
    seen.append((file, database))


class Store:
    @OfAClass
    async def by_an_object(self, file: File, database: str) -> None:
        seen.append((file, database))

    @by_keyword
    async def by_keyword(self, file: File, *, database: str) -> None:
        seen.append((file, database))

    async def __call__(self, file: File, database: str) -> None:
        seen.append((file, database))


class Bound:
    """Its `__call__` is bound to another object: an attribute that is a method."""

    def __init__(self) -> None:
        self.handler = by_keyword(Store().__call__)


ASYNC = {
    "async": asynchronous(store),
    "by keyword": by_keyword(store),
    "decorator with an argument": with_an_argument(DATABASE)(store),
    "twice": by_keyword(by_option(store)),
    "an object": OfAClass(store),
    "an object of another module": Injecting(store),
    "an object that names the parameter": Named(database_first),
    "a method under an object": Store().by_an_object,
    "a method": Store().by_keyword,
    "an async callable": asynchronous(Store()),
    "an async callable under an object": OfAClass(Store()),
    "a bound method": Bound().handler,
    "a partial inside": asynchronous(functools.partial(options_first, 1)),
    "a partial outside": functools.partial(with_an_argument(DATABASE)(store), again=True),
    "a partial of an object": functools.partial(OfAClass(store)),
    "an object bound to a method": functools.partial(OfAClass(options_first), 1),
}


@pytest.mark.parametrize("handler", ASYNC.values(), ids=ASYNC)
async def test_a_handler_gets_the_event_and_what_its_decorator_gives_it(handler: Any) -> None:
    signature = inspect_handler(handler)
    assert (signature.parameter, signature.is_async) == (("value", False, File), True)
    seen.clear()
    app = Octopus("app")
    app.on("t", name="handler")(handler)
    async with TestClient(app) as client:
        assert await client.publish("t", {"path": "/a"}) == {"handler": DONE}
    assert seen == [(File("/a"), DATABASE)]


@pytest.mark.parametrize(
    ("handler", "in_main_thread"),
    [(threaded(store_in_a_thread), False), (functools.partial(threaded(store_in_a_thread)), False)],
    ids=["sync", "a partial of it"],
)
async def test_a_sync_handler_under_a_sync_decorator_runs_in_a_thread(handler: Any, in_main_thread: bool) -> None:
    assert inspect_handler(handler)[1:3] == (("value", False, File), False)
    seen.clear()
    app = Octopus("app")
    app.on("t")(handler)
    async with TestClient(app) as client:
        await client.publish("t", {"path": "/a"})
    assert seen == [(File("/a"), DATABASE, in_main_thread)]


async def test_what_a_sync_decorator_returns_of_an_async_handler_is_awaited() -> None:
    handler = sync_around_async(store)
    assert inspect_handler(handler)[1:3] == (("value", False, File), False)
    seen.clear()
    app = Octopus("app")
    app.on("t")(handler)
    async with TestClient(app) as client:
        assert await client.publish("t", {"path": "/a"}) == {"store": DONE}
    assert seen == [(File("/a"), DATABASE)]


def test_a_decorator_that_says_itself_what_it_takes_is_believed_in_its_own_words() -> None:
    @unwrapping
    async def handler(file: File, database: str) -> None: ...

    assert inspect_handler(handler).parameter == ("event", False, int)


def test_what_is_written_in_c_is_called_as_what_it_is_around() -> None:
    @functools.lru_cache
    def handler(event: Event[File]) -> dict[str, int]: ...

    assert inspect_handler(handler) == ("handler", ("event", False, File), False, Any)


def test_a_partial_of_a_decorated_handler_does_not_promise_what_the_handler_returns() -> None:
    async def handler(file: File, database: str) -> dict[str, int]: ...

    Octopus("app").on("t")(functools.partial(by_keyword(handler)))


def test_a_decorator_that_wants_more_is_refused_under_the_name_of_what_it_is_around() -> None:
    @functools.wraps(store)
    async def demanding(file: File, database: str) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"^Handler store takes file, database; it is called with one argument"
    ):
        inspect_handler(demanding)
