"""What each machine of the runner says of itself at its top, asserted after every step while tests run.

A class names the methods after which its `check` must pass. They are only wrapped once `switch_on` is called, which the tests
do: elsewhere nothing is added to them, so what a record costs stays the same.

Assertions look at all of a machine while that is small (`SMALL`): a test of a hundred thousand records is to end.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

SMALL = 64
"""How many entries of one collection are looked at after each step."""


class Machine(Protocol):
    """Has invariants."""

    def check(self) -> None:
        """Raise `AssertionError` where one does not hold."""
        ...


M = TypeVar("M", bound=Machine)

_machines: dict[type[Any], tuple[str, ...]] = {}
_methods: dict[tuple[type[Any], str], Callable[..., Any]] = {}  # as they were, while the assertions are switched on


def hold_after(*methods: str) -> Callable[[type[M]], type[M]]:
    """Name the methods after which the invariants of a class hold."""

    def register(machine: type[M]) -> type[M]:
        _machines[machine] = methods
        if _methods:
            _wrap(machine, methods)
        return machine

    return register


def switch_on() -> None:
    """Assert from now on, in this process."""
    if not _methods:
        for machine, methods in _machines.items():
            _wrap(machine, methods)


def switch_off() -> None:
    """Assert no more."""
    for (machine, name), method in _methods.items():
        setattr(machine, name, method)
    _methods.clear()


def _wrap(machine: type[Any], methods: tuple[str, ...]) -> None:
    for name in methods:
        method = _methods[machine, name] = machine.__dict__[name]
        setattr(machine, name, _checked(method))


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def and_check(self: Machine, *arguments: Any, **options: Any) -> Any:
        result = method(self, *arguments, **options)
        self.check()
        return result

    return and_check
