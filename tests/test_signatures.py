"""What a handler's signature says, and which mistakes are found at decoration."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import msgspec
import pytest

from octopus.errors import ConfigurationError
from octopus.events import Event, Message, Published
from octopus.outcomes import Done, Outcome, Retry
from octopus.routing import Router
from octopus.signatures import Parameter, inspect_handler, inspect_parameter, returned_value
from tests import signatures_of_the_future as future


class File(msgspec.Struct):
    path: str


class Stranger:
    pass


class Handlers:
    async def method(self, file: File) -> None: ...

    @staticmethod
    async def static(file: File) -> None: ...

    @classmethod
    async def of_class(cls, file: File) -> None: ...


class Callable_:
    async def __call__(self, file: File) -> None: ...


async def typed(file: File) -> dict: ...  # type: ignore[empty-body, type-arg]


def sync(file: File) -> list[str]: ...  # type: ignore[empty-body]


async def event(event: Event[File]) -> None: ...


async def bare_event(event: Event) -> None: ...  # type: ignore[type-arg]


async def quoted(file: "Event[File]") -> None: ...


async def untyped(value): ...  # type: ignore[no-untyped-def]


async def with_defaults(file: File, retries: int = 3, *, strict: bool = False) -> None: ...


async def only_defaults(file: File | None = None) -> None: ...


async def anything(*arguments: int, **options: int) -> None: ...


async def positional_only(file: File, /) -> None: ...


async def two(folder: str, file: File) -> None: ...


async def optional_event(event: Event[File | None]) -> None: ...


@pytest.mark.parametrize(
    ("function", "name", "kind", "type_", "is_async", "returns"),
    [
        pytest.param(typed, "typed", "value", File, True, dict, id="async"),
        pytest.param(sync, "sync", "value", File, False, list[str], id="sync"),
        pytest.param(event, "event", "event", File, True, type(None), id="event"),
        pytest.param(bare_event, "bare_event", "event", Any, True, type(None), id="event of anything"),
        pytest.param(
            optional_event, "optional_event", "event", File | None, True, type(None), id="event of an optional"
        ),
        pytest.param(quoted, "quoted", "event", File, True, type(None), id="quoted annotation"),
        pytest.param(untyped, "untyped", "value", Any, True, Any, id="no annotation"),
        pytest.param(
            with_defaults, "with_defaults", "value", File, True, type(None), id="further arguments have defaults"
        ),
        pytest.param(only_defaults, "only_defaults", "value", File | None, True, type(None), id="all have defaults"),
        pytest.param(anything, "anything", "value", Any, True, type(None), id="any arguments"),
        pytest.param(positional_only, "positional_only", "value", File, True, type(None), id="positional only"),
        pytest.param(Handlers().method, "method", "value", File, True, type(None), id="bound method"),
        pytest.param(Handlers.static, "static", "value", File, True, type(None), id="static method"),
        pytest.param(Handlers.__dict__["static"], "static", "value", File, True, type(None), id="static method object"),
        pytest.param(Handlers.of_class, "of_class", "value", File, True, type(None), id="class method"),
        pytest.param(Callable_(), "Callable_", "value", File, True, type(None), id="callable object"),
        pytest.param(functools.partial(two, "a"), "two", "value", File, True, type(None), id="partial"),
        pytest.param(
            functools.partial(Callable_()), "Callable_", "value", File, True, type(None), id="partial of an object"
        ),
        pytest.param(
            functools.partial(functools.partial(with_defaults, retries=1), strict=True),
            "with_defaults",
            "value",
            File,
            True,
            type(None),
            id="partial of a partial",
        ),
        pytest.param(lambda value: value, "<lambda>", "value", Any, False, Any, id="lambda"),
        pytest.param([].append, "append", "value", Any, False, Any, id="built-in method"),
        pytest.param(
            future.global_type, "global_type", "value", future.File, True, type(None), id="annotations are texts"
        ),
        pytest.param(
            future.returns_what_only_type_checkers_know,
            "returns_what_only_type_checkers_know",
            "value",
            future.File,
            False,
            Any,
            id="return type for type checkers only",
        ),
        pytest.param(
            future.unrelated_default, "unrelated_default", "value", future.File, False, type(None), id="default only"
        ),
    ],
)
def test_a_signature_says_what_the_handler_wants(
    function: Callable[..., Any], name: str, kind: str, type_: Any, is_async: bool, returns: Any
) -> None:
    signature = inspect_handler(function)

    assert signature.name == name
    assert signature.parameter == (kind, False, type_)
    assert (signature.wants_event, signature.type) == (kind == "event", type_)
    assert (signature.is_async, signature.returns) == (is_async, returns)


@pytest.mark.parametrize(
    "inspected",
    [
        future.local_type,
        future.local_type_used_inside_another_function,
        future.local_type_in_a_method,
        future.decorated,
        lambda: inspect_handler(future.local_type_closed_over()),
    ],
    ids=["in its function", "around its function", "method", "decorated", "closed over"],
)
def test_types_local_to_a_function_are_found(inspected: Callable[[], Any]) -> None:
    signature = inspected()
    assert signature.parameter.type.__name__ == "Local"
    assert signature.is_async


async def batch_values(files: list[File]) -> None: ...


async def batch_events(files: list[Event[File]]) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (batch_values, Parameter("value", True, File)),
        (batch_events, Parameter("event", True, File)),
        (untyped, Parameter("value", True, Any)),
        (future.batch_of_events, Parameter("event", True, future.File)),
    ],
)
def test_a_batch_is_a_list(function: Callable[..., Any], expected: Parameter) -> None:
    assert inspect_handler(function, batch=True).parameter == expected


@pytest.mark.parametrize(
    ("annotation", "batch", "expected"),
    [
        (list[int], False, ("value", False, list[int])),
        (list[int], True, ("value", True, int)),
        (list, True, ("value", True, Any)),
        (Sequence[int], True, ("value", True, int)),
        (Iterable[Event[int]], True, ("event", True, int)),
        (list[Event], True, ("event", True, Any)),
        (list[list[int]], True, ("value", True, list[int])),
        (list[Event[list[int]]], True, ("event", True, list[int])),
        (Any, True, ("value", True, Any)),
        (Event[list[int]], False, ("event", False, list[int])),
        (Annotated[Event[int], "note"], False, ("event", False, int)),
        (Annotated[list[Event[int]], "note"], True, ("event", True, int)),
        (int | None, False, ("value", False, int | None)),
    ],
    ids=str,
)
def test_generic_aliases_are_unwrapped(annotation: Any, batch: bool, expected: tuple[str, bool, Any]) -> None:
    assert inspect_parameter(annotation, batch) == expected


def nothing() -> None: ...


def keyword(*, file: File) -> None: ...


def needs_keyword(file: File, *, folder: str) -> None: ...


def generator(file: File) -> Iterator[int]:
    yield 1


async def async_generator(file: File) -> AsyncIterator[int]:
    yield 1


def unresolvable(file: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def malformed(file: "File[") -> None: ...  # type: ignore[valid-type]  # noqa: F722


def undecodable(thing: Stranger) -> None: ...


def undecodable_inside(thing: Event[dict[str, Stranger]]) -> None: ...


def maybe_event(event: Event[int] | None) -> None: ...


def message(message: Message[int]) -> None: ...


def event_inside(events: dict[str, Event[int]]) -> None: ...


@pytest.mark.parametrize(
    ("function", "batch", "sentence"),
    [
        (nothing, False, "Handler nothing takes no positional argument; it is called with one, the event."),
        (two, False, "Handler two takes folder, file; it is called with one argument, the event, so the others"),
        (Handlers.method, False, "Handler method takes self, file; .* register the bound method of an object"),
        (keyword, False, "Handler keyword needs the keyword argument file; give it a default value"),
        (needs_keyword, False, "Handler needs_keyword needs the keyword argument folder"),
        (generator, False, "Handler generator is a generator; return a list to publish several events"),
        (async_generator, False, "Handler async_generator is a generator"),
        (functools.partial(generator), False, "Handler generator is a generator"),
        (File, False, "File is a class; a handler is a function"),
        (7, False, "7 cannot be called, so it cannot be a handler"),
        (Handlers.__dict__["of_class"], False, "cannot be a handler; register the bound method"),
        (
            unresolvable,
            False,
            "Handler unresolvable, parameter file: annotation 'Missing' cannot be resolved: name 'Missing'",
        ),
        (malformed, False, "Handler malformed, parameter file: annotation .* cannot be resolved"),
        (future.for_type_checkers_only, False, "Decimal.*; .* not only for type checkers"),
        (undecodable, False, "Handler undecodable, parameter thing: Stranger cannot be decoded: not a data type"),
        (undecodable_inside, False, "Stranger inside dict.* cannot be decoded: not a data type"),
        (maybe_event, False, r"Event stands inside .*Event\[int\]"),
        (event_inside, False, r"Event stands inside dict\[str, Event\[int\]\]"),
        (message, False, "Message is what handlers return; annotate Event"),
        (batch_events, False, r"is a batch; register the handler with batch="),
        (event, True, r"Handler event, parameter event: with batch= it gets a list, so annotate list\[Event"),
        (typed, True, r"Handler typed, parameter file: with batch= it gets a list, so annotate list\[File\]"),
    ],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_mistakes_are_sentences_at_decoration(function: Any, batch: bool, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        inspect_handler(function, batch)


def test_a_handler_may_close_over_what_is_assigned_after_it() -> None:
    async def handler(value: int) -> None:
        later.append(value)

    signature = inspect_handler(handler)
    later: list[int] = []
    assert signature.parameter.type is int


RETURNS = {
    "nothing": (None, None),
    "no annotation": (Any, None),
    "never": (NoReturn, None),
    "an object": (object, None),
    "a Message": (Message[int], None),
    "perhaps a Message": (Message[int] | None, None),
    "several Messages": (list[Message[int]], None),
    "a tuple of Messages": (tuple[Message[int], ...], None),
    "nothing in it": (tuple[()], None),
    "a list of whatever": (list, None),
    "a list of anything": (list[Any], None),
    "a coroutine": (Coroutine[Any, Any, None], None),
    "a task": (asyncio.Task[None], None),
    "a type variable": (TypeVar("T"), None),
    "literally nothing": (Literal[None], None),
    "with a note": (Annotated[None, "done"], None),
    "a value": (int, int),
    "perhaps a value": (int | None, int),
    "a Message or a value": (Message[int] | str, str),
    "several values": (list[Message[int] | int], int),
    "a mapping": (dict[str, int], dict[str, int]),
    "a value to be awaited": (Awaitable[int], int),
    "a value with a note": (Annotated[str, "text"], str),
    "a literal": (Literal["a"], Literal["a"]),
    "what publish returned": (Published, Published),
    "an iterator": (Iterator[int], Iterator[int]),
}


@pytest.mark.parametrize(("annotation", "value"), RETURNS.values(), ids=RETURNS)
def test_a_value_that_is_returned_must_go_somewhere(annotation: Any, value: Any) -> None:
    async def handler(event: int) -> None: ...

    handler.__annotations__["return"] = annotation
    assert returned_value(annotation) == value
    if value is None:
        Router().on("t")(handler)
    else:
        with pytest.raises(
            ConfigurationError, match=r"^handler 'handler': it returns .*, and nothing says where that goes: give"
        ):
            Router().on("t")(handler)
    Router().on("t", to="out")(handler)


@pytest.mark.parametrize("annotation", [Outcome, Done, Done | None, list[Retry]], ids=str)
def test_outcomes_are_not_what_handlers_return(annotation: Any) -> None:
    async def handler(event: int) -> None: ...

    handler.__annotations__["return"] = annotation
    with pytest.raises(
        ConfigurationError, match=r"it returns (Done|Retry), an outcome, as middleware does; return None, or raise"
    ):
        Router().on("t", to="out")(handler)


def injecting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def with_database(file: Any) -> Any:
        return await function(file, "database")

    return with_database


def injecting_under_another_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def with_database(event):  # type: ignore[no-untyped-def]
        return await function(event, "database")

    return with_database


def injecting_by_keyword(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def with_database(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs, database="database")

    return with_database


def demanding(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def with_more(file: Any, more: Any) -> Any: ...

    return with_more


@pytest.mark.parametrize("decorator", [injecting, injecting_under_another_name, injecting_by_keyword])
async def test_a_decorator_that_gives_arguments_itself_is_called_as_what_it_is(decorator: Any) -> None:
    seen = []

    @decorator
    async def handler(file: File, database: str) -> None:
        seen.append((file, database))

    signature = inspect_handler(handler)
    assert signature.parameter == Parameter("value", False, File)
    await handler(File("/a"))
    assert seen == [(File("/a"), "database")]


def test_a_decorator_that_wants_more_than_what_it_is_around_is_refused() -> None:
    @demanding
    async def handler(file: File) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Handler handler takes file, more; it is called with one argument"):
        inspect_handler(handler)


def test_what_a_decorated_handler_returns_is_only_known_when_it_runs() -> None:
    @injecting
    async def handler(file: File, database: str) -> dict[str, int]: ...

    Router().on("t")(handler)
