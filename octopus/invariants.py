"""What each machine says of itself at its top, asserted after every step while tests run.

A machine is a class whose objects keep a promise about their state between any two steps. It names the methods after which its `check`
must pass. They are only wrapped once `switch_on` is called, which the tests do: elsewhere nothing is added to them, so what a
record costs stays the same.

Assertions look at all of a machine while that is small (`SMALL`): a test of a hundred thousand records is to end.
"""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Protocol, TypeVar

SMALL = 64
"""How many entries of one collection are looked at after each step."""


class Machine(Protocol):
    """Has invariants."""

    def check(self) -> None:
        """Raise `AssertionError` where one does not hold."""
        ...


M = TypeVar("M", bound=Machine)


def hold_after(*methods: str) -> Callable[[type[M]], type[M]]:
    """Name the methods after which the invariants of a class hold; of one that is async, after it has ended."""

    def register(machine: type[M]) -> type[M]:
        _MACHINES.register(machine, methods)
        return machine

    return register


def switch_on() -> None:
    """Assert from now on, in this process, also in classes that are imported later."""
    _MACHINES.switch_on()


def switch_off() -> None:
    """Assert no more."""
    _MACHINES.switch_off()


class _Machines:
    """The classes that have invariants, and their methods as they were written, while they are wrapped."""

    def __init__(self) -> None:
        self._methods: dict[type[Any], tuple[str, ...]] = {}
        self._written: dict[tuple[type[Any], str], Callable[..., Any]] = {}
        self._is_on = False

    def register(self, machine: type[Any], methods: tuple[str, ...]) -> None:
        self._methods[machine] = methods
        if self._is_on:
            self._wrap(machine)

    def switch_on(self) -> None:
        if not self._is_on:
            self._is_on = True
            for machine in self._methods:
                self._wrap(machine)

    def switch_off(self) -> None:
        self._is_on = False
        for (machine, name), method in self._written.items():
            setattr(machine, name, method)
        self._written.clear()

    def _wrap(self, machine: type[Any]) -> None:
        for name in self._methods[machine]:
            method = self._written[machine, name] = machine.__dict__[name]
            setattr(machine, name, _checked(method))


_MACHINES = _Machines()


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    if iscoroutinefunction(method):

        @wraps(method)
        async def and_check_at_its_end(self: Machine, *arguments: Any, **options: Any) -> Any:
            result = await method(self, *arguments, **options)
            self.check()
            return result

        return and_check_at_its_end

    @wraps(method)
    def and_check(self: Machine, *arguments: Any, **options: Any) -> Any:
        result = method(self, *arguments, **options)
        self.check()
        return result

    return and_check
