"""Functions, classes and attributes of a library as we need them, without changing anything in it."""

import types
from collections.abc import Iterator
from functools import partial, update_wrapper
from operator import attrgetter
from types import CodeType, FunctionType, ModuleType
from typing import Any


def seeing(function: Any, **names: Any) -> Any:
    """Return a copy of a function to which some of the global names that it uses mean something else.

    Raises:
        AttributeError: It uses no such name.
    """
    if unknown := names.keys() - {*function.__code__.co_names}:
        raise AttributeError(f"{function.__qualname__} does not use {', '.join(sorted(unknown))}")
    return _copy(function, function.__globals__ | names)


def module_seeing(module: ModuleType, **names: Any) -> Any:
    """Return the content of a module to whose classes some of the global names that they use mean something else.

    A class that uses such a name, or uses such a class, is a subclass with copies of its functions; all else is as it was.

    Raises:
        AttributeError: No class uses such a name.
    """
    classes = {
        name: kind for name, kind in vars(module).items() if getattr(kind, "__module__", None) == module.__name__
    }
    used = {name: {*_names_in(kind, module)} for name, kind in classes.items() if isinstance(kind, type)}
    if unknown := names.keys() - {each for some in used.values() for each in some}:
        raise AttributeError(f"no class of {module.__name__} uses {', '.join(sorted(unknown))}")
    changed = {*names}
    while more := {name for name, some in used.items() if some & changed} - changed:
        changed |= more
    seen = {**vars(module), **names}
    for name in used.keys() & changed:
        copies = {inside: _copied(each, seen) for inside, each in _members(classes[name], module)}
        seen[name] = types.new_class(
            name, (classes[name],), exec_body=partial(_fill, copies | {"__module__": module.__name__})
        )
    return types.SimpleNamespace(**seen)


def inner(name: str) -> Any:
    """Return a property that reads a private attribute."""
    return property(attrgetter(name))


def _fill(content: dict[str, Any], body: dict[str, Any]) -> None:
    body.update(content)


def _copy(function: Any, names: dict[str, Any]) -> Any:
    seen = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    seen.__kwdefaults__ = function.__kwdefaults__
    return update_wrapper(seen, function)


def _copied(member: Any, names: dict[str, Any]) -> Any:
    if isinstance(member, classmethod | staticmethod):
        return type(member)(_copy(member.__func__, names))
    return _copy(member, names)


def _members(kind: type, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the functions of a class that see a module's global names, inherited ones, too."""
    for base in reversed(kind.__mro__):
        for name, member in vars(base).items():
            if getattr(getattr(member, "__func__", member), "__globals__", None) is vars(module):
                yield name, member


def _names_in(kind: type, module: ModuleType) -> Iterator[str]:
    for _, member in _members(kind, module):
        yield from _names_of(getattr(member, "__func__", member).__code__)


def _names_of(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names_of(each)
