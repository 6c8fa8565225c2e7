"""The invariants of machines are asserted after each step in tests, and nowhere else is anything added to their methods."""

import subprocess
import sys

import pytest

from octopus import invariants
from octopus.runner import Runner


@invariants.hold_after("add", "add_later")
class Pot:
    """Holds no more than two."""

    def __init__(self) -> None:
        self.held = 0

    def add(self, count: int) -> int:
        self.held += count
        return self.held

    async def add_later(self, count: int) -> int:
        return self.add(count)

    def check(self) -> None:
        assert self.held <= 2


class DeepPot(Pot):
    """Inherits what is asserted."""


@pytest.mark.parametrize("kind", [Pot, DeepPot])
def test_a_step_that_breaks_an_invariant_fails_and_others_return_what_they_did(kind: type[Pot]) -> None:
    pot = kind()
    assert pot.add(2) == 2
    with pytest.raises(AssertionError):
        pot.add(1)


async def test_a_step_that_waits_is_checked_at_its_end() -> None:
    pot = Pot()
    assert await pot.add_later(1) == 1
    pot.held = 5
    with pytest.raises(AssertionError):
        await pot.add_later(-1)


def test_a_machine_that_is_made_while_nothing_is_asserted_joins_the_others_afterwards(switched_off: None) -> None:
    @invariants.hold_after("add")
    class Late(Pot):
        def add(self, count: int) -> int:
            return super().add(count)

    assert Late().add(3) == 3
    invariants.switch_on()
    with pytest.raises(AssertionError):
        Late().add(3)


def test_methods_are_as_they_were_written_while_nothing_is_asserted(switched_off: None) -> None:
    assert not any(hasattr(getattr(Runner, name), "__wrapped__") for name in ("open", "submit", "revoke"))
    assert Pot().add(3) == 3


def printed_by(program: str) -> str:
    """Return what a program prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


OUTSIDE_OF_TESTS = """
import octopus.pipeline, octopus.runner, octopus.send_queue
from octopus.invariants import _MACHINES
named = [vars(machine)[name] for machine, names in _MACHINES._methods.items() for name in names]
print(len(named) > 30, any(hasattr(method, "__wrapped__") for method in named))
"""


def test_outside_of_tests_nothing_is_asserted() -> None:
    assert printed_by(OUTSIDE_OF_TESTS) == "True False"


IMPORTED_LATER = """
from octopus import invariants
invariants.switch_on()
from octopus.runner import Runner
print(hasattr(Runner.submit, "__wrapped__"))
"""


def test_a_machine_that_is_imported_after_the_switch_is_asserted_too() -> None:
    assert printed_by(IMPORTED_LATER) == "True"
