"""Read a handler's signature: its argument, one event or a batch, async or not. Mistakes are found at decoration."""

import collections
import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from octopus.errors import ConfigurationError
from octopus.events import Event, Message
from octopus.outcomes import OUTCOMES
from octopus.serde import Decoder
from octopus.serde.annotations import inside, is_union, plain, spell

_SEQUENCES = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_NO_VALUE = (None, types.NoneType, Any, object, typing.NoReturn, typing.Never)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameter(NamedTuple):
    """A handler's argument.

    Attributes:
        kind: The decoded value, or an `Event` around it.
        batch: A list of them.
        type: The type that each record is decoded into; Any without an annotation.
    """

    kind: Literal["value", "event"]
    batch: bool
    type: Any


class Signature(NamedTuple):
    """A handler, looked at once.

    Attributes:
        name: The function's own name; for a callable object, its class's.
        parameter: Its argument.
        is_async: Calling it gives a coroutine. A sync function may still return an awaitable: look at its result.
        returns: The return annotation; Any where there is none, or where it cannot be resolved.
    """

    name: str
    parameter: Parameter
    is_async: bool
    returns: Any

    @property
    def type(self) -> Any:
        """The type that each record is decoded into."""
        return self.parameter.type

    @property
    def wants_event(self) -> bool:
        """Whether the handler gets the `Event` around the value."""
        return self.parameter.kind == "event"


def inspect_handler(function: Callable[..., Any], batch: bool = False) -> Signature:
    """Read the signature of a function, a bound method, a partial or a callable object.

    Args:
        function: The handler. It is called with one positional argument.
        batch: Whether it is registered with `batch=`.

    Raises:
        ConfigurationError: It cannot be a handler; the sentence gives the reason and the remedy.
    """
    name = _name(function)
    called = _called(function, name)
    if isinstance(function, staticmethod):
        function = function.__func__
    parameter, owner = _event_parameter(function, name), _annotated(called)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL or parameter.annotation is inspect.Parameter.empty:
        handed_on = _wrapped_parameter(function, parameter.name)
        if handed_on is not None:
            parameter, owner = handed_on, _innermost(function, name)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        annotation: Any = Any  # its annotation is that of each argument, most often a decorator's `Any`
    else:
        annotation = _resolve(owner, parameter.name, parameter.annotation, name)
    try:
        found = inspect_parameter(annotation, batch)
        Decoder[Any](found.type)
    except ConfigurationError as error:
        raise ConfigurationError(f"Handler {name}, parameter {parameter.name}: {error}") from error
    except NameError as error:  # of an alias, which is read when it is asked for
        raise ConfigurationError(
            f"Handler {name}, parameter {parameter.name}: {spell(annotation)} cannot be resolved: {error}; define it before the "
            "handler."
        ) from error
    is_async = inspect.iscoroutinefunction(called)
    if hasattr(_decorated(function), "__wrapped__"):
        return Signature(name, found, is_async, Any)  # a decorator may return another type
    try:
        returns = _resolve(called, "return", inspect.signature(function).return_annotation, name)
    except ConfigurationError:
        returns = Any  # nothing is decoded into it, so a name known to type checkers only does no harm
    return Signature(name, found, is_async, returns)


def inspect_parameter(annotation: Any, batch: bool = False) -> Parameter:
    """Unwrap `Event[T]` and, with `batch`, `list[T]` and `list[Event[T]]`.

    Raises:
        ConfigurationError: Batch and annotation contradict each other, or `Event` stands where it cannot.
    """
    meant = _meant(annotation)
    item = _item(meant)
    if batch:
        if item is None:
            raise ConfigurationError(f"with batch= it gets a list, so annotate list[{spell_generic(annotation)}].")
        annotation, meant = item, _meant(item)
    elif item is not None and _is_event(_meant(item)):
        raise ConfigurationError(
            f"{spell_generic(annotation)} is a batch; register the handler with batch=, or annotate Event[…]."
        )
    kind: Literal["value", "event"] = "value"
    if _is_event(meant):
        kind, annotation = "event", (typing.get_args(meant) or (Any,))[0]
    if _holds(annotation, Event):
        raise ConfigurationError(
            f"Event stands inside {spell_generic(annotation)}; annotate Event[…] or list[Event[…]]."
        )
    if _holds(annotation, Message):
        raise ConfigurationError(
            "Message is what handlers return; annotate Event[…] to receive key, headers and coordinates."
        )
    return Parameter(kind, batch, annotation)


def returned_value(annotation: Any) -> Any | None:
    """Return the part of a return annotation that says a value, which must be published somewhere; None if none does.

    A `Message` may say itself where it goes, and an annotation that says nothing is no promise.
    """
    annotation = _meant(annotation)
    if annotation in _NO_VALUE or isinstance(annotation, TypeVar) or _is_message(annotation):
        return None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal and arguments == (None,):
        return None
    kind = origin or annotation
    if kind in _SEQUENCES or kind is tuple or is_union(annotation):
        parts = [each for each in arguments if each not in (..., ())]
    elif isinstance(kind, type) and issubclass(kind, collections.abc.Awaitable):
        parts = list(arguments[-1:])
    else:
        return annotation
    return next((found for each in parts if (found := returned_value(each)) is not None), None)


def returned_outcome(annotation: Any) -> Any | None:
    """Return the part of a return annotation that is an outcome, which handlers do not return; None if none is."""
    annotation = _meant(annotation)
    if annotation in OUTCOMES:
        return annotation
    parts = typing.get_args(annotation) if typing.get_origin(annotation) is not Literal else ()
    return next((found for each in parts if (found := returned_outcome(each)) is not None), None)


def spell_generic(annotation: Any) -> str:
    """Write an annotation without the modules of our own classes."""
    return spell(annotation).replace("octopus.events.", "")


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name: str = getattr(function, "__name__", type(function).__name__)
    return name


def _called(function: Any, name: str) -> Any:
    """Return the function whose code runs, or say why there is none."""
    if isinstance(function, type):
        raise ConfigurationError(
            f"{name} is a class; a handler is a function, a bound method or an object with __call__."
        )
    if not callable(function):
        hint = "; register the bound method of an object instead" if isinstance(function, classmethod) else ""
        raise ConfigurationError(f"{function!r} cannot be called, so it cannot be a handler{hint}.")
    called = function
    while not isinstance(called, types.FunctionType | types.BuiltinFunctionType):
        if isinstance(called, functools.partial):
            called = called.func
        elif isinstance(called, types.MethodType | staticmethod):
            called = called.__func__
        elif isinstance(type(called).__call__, types.WrapperDescriptorType):
            break  # written in C, as lru_cache's wrapper
        else:
            called = type(called).__call__
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(f"Handler {name} is a generator; return a list to publish several events.")
    return called


def _decorated(function: Any) -> Any:
    """Look through partials: a decorated function itself names the function it wraps."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _innermost(function: Any, name: str) -> Any:
    """Return the function that decorators, partials and objects with a `__call__` are around."""
    while (inner := inspect.unwrap(_decorated(function))) is not function:
        function = inner
    called = _called(function, name)
    return function if called is function else _innermost(called, name)


def _annotated(called: Any) -> Any:
    """Return the function that the annotations of a function were written at: `wraps` takes over those of another one."""
    inner = inspect.unwrap(called)
    same = getattr(inner, "__annotations__", None) is getattr(called, "__annotations__", called)
    return inner if same or not inspect.isfunction(called) else called


def _event_parameter(function: Any, name: str) -> inspect.Parameter:
    try:
        parameters = list(_own_signature(function).parameters.values())
    except (TypeError, ValueError, NameError) as error:
        raise ConfigurationError(
            f"Handler {name} has no readable signature: {error}; wrap it in a function."
        ) from error
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    required = [parameter.name for parameter in positional if parameter.default is inspect.Parameter.empty]
    keywords = [
        parameter.name
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is inspect.Parameter.empty
    ]
    if keywords:
        raise ConfigurationError(f"Handler {name} needs the keyword argument {keywords[0]}; give it a default value.")
    if len(required) > 1:
        method = "; register the bound method of an object" if required[0] in ("self", "cls") else ""
        raise ConfigurationError(
            f"Handler {name} takes {', '.join(required)}; it is called with one argument, the event, "
            f"so the others need default values{method}."
        )
    rest = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.VAR_POSITIONAL]
    if not positional and not rest:
        raise ConfigurationError(f"Handler {name} takes no positional argument; it is called with one, the event.")
    return (positional + rest)[0]


def _own_signature(function: Any) -> inspect.Signature:
    """Read the signature of the callable itself, not of the function it wraps: a decorator may pass further arguments."""
    try:
        return inspect.signature(_readable(function), follow_wrapped=False)
    except ValueError:  # it is written in C, and has none
        return inspect.signature(function)


def _readable(function: Any) -> Any:
    """Return the method of an object that is called: inspect takes one with a `__get__` for something written in C."""
    match function:
        case functools.partial():
            return functools.partial(_readable(function.func), *function.args, **function.keywords)
        case types.MethodType():
            return types.MethodType(_readable(function.__func__), function.__self__)
        case types.FunctionType() | types.BuiltinFunctionType():
            return function
    return function if isinstance(type(function).__call__, types.WrapperDescriptorType) else function.__call__


def _wrapped_parameter(function: Any, name: str) -> inspect.Parameter | None:
    """Return the wrapped function's parameter that gets a decorator's argument: of the same name, else the first."""
    if not hasattr(_decorated(function), "__wrapped__"):
        return None
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError, NameError):
        return None
    positional = [each for each in parameters.values() if each.kind in _POSITIONAL]
    return next((each for each in positional if each.name == name), positional[0] if positional else None)


def _resolve(function: Any, parameter: str, annotation: Any, name: str) -> Any:
    """Evaluate one annotation on its own: others may have names that only a type checker knows."""
    if annotation is inspect.Parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={parameter: annotation})
    namespace = getattr(function, "__globals__", {})
    try:
        hints = typing.get_type_hints(holder, namespace, _local_names(function), include_extras=True)
    except Exception as error:
        raise ConfigurationError(
            f"Handler {name}, parameter {parameter}: annotation {annotation!r} cannot be resolved: {error}; "
            "define or import it before the handler, not only for type checkers."
        ) from error
    return hints[parameter]


def _local_names(function: Any) -> Mapping[str, Any]:
    """Collect the local names around the function, as far as their scopes are still running or closed over.

    `from __future__ import annotations` turns a type that is local to a function into a mere name. At decoration the
    defining scope is a frame on the stack: the frame whose code holds this code as a constant.
    """
    if "<locals>" not in getattr(function, "__qualname__", "") or not inspect.isfunction(function):
        return {}
    code = function.__code__
    scopes: list[dict[str, Any]] = []
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if _defines(frame.f_code, code):
            scopes.append(dict(frame.f_locals))
            code = frame.f_code
        frame = frame.f_back
    return collections.ChainMap({}, *scopes, _cells(function))


def _cells(function: Any) -> dict[str, Any]:
    """Return the variables that a function closes over and that have a value yet."""
    names = getattr(function, "__code__", None)
    cells = zip(names.co_freevars if names else (), getattr(function, "__closure__", None) or (), strict=False)
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # assigned after the handler is defined
    return found


def _defines(outer: types.CodeType, code: types.CodeType) -> bool:
    """Whether code is written inside other code, perhaps in the body of a class that has been left already."""
    inner = [constant for constant in outer.co_consts if isinstance(constant, types.CodeType)]
    return any(each is code or _defines(each, code) for each in inner)


def _meant(annotation: Any) -> Any:
    """Look through `Annotated` and `type X = …`, and let an annotation that cannot be hashed stand for anything."""
    annotation = plain(annotation)
    return annotation if isinstance(annotation, collections.abc.Hashable) else Any


def _is_message(annotation: Any) -> bool:
    return annotation is Message or typing.get_origin(annotation) is Message


def _item(annotation: Any) -> Any | None:
    """Return T of `list[T]` and its likes; None when it is no list. An unannotated parameter may be one."""
    if annotation in (Any, object):
        return Any
    origin = typing.get_origin(annotation) or annotation
    return (typing.get_args(annotation) or (Any,))[0] if origin in _SEQUENCES else None


def _is_event(annotation: Any) -> bool:
    return annotation is Event or typing.get_origin(annotation) is Event


def _holds(annotation: Any, wanted: type) -> bool:
    return any(each is wanted or typing.get_origin(each) is wanted for each in inside(annotation))
