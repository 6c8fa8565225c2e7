"""The invariants of what is on its way: each is noticed when it is broken."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from octopus import Octopus
from octopus.runner import Assignment
from tests.pipeline.aloft import Aloft, Make


def _not_counted(group: Aloft, _: Assignment) -> Any:
    group.outputs.size_bytes -= 1
    return group.outputs


def _full_with_room(group: Aloft, _: Assignment) -> Any:
    group.outputs.is_full = True
    return group.outputs


def _forgotten(group: Aloft, _: Assignment) -> Any:
    group.outputs.size_bytes -= group.outputs._flying.popleft().size_bytes
    return group.outputs


def _overtaken(group: Aloft, _: Assignment) -> Any:
    group.outputs._flying.reverse()
    return group.outputs


def _left_twice(group: Aloft, _: Assignment) -> Any:
    publication = group.outputs._flying[0]
    publication.left = [0, 0]
    return publication


def _stored_without_word(group: Aloft, _: Assignment) -> Any:
    publication = group.outputs._flying[0]
    publication.waiters[0] = asyncio.get_running_loop().create_future()
    publication.left = []
    return publication


def _settled_while_it_waits(_: Aloft, assignment: Assignment) -> Any:
    assignment._ledger.settle(0)
    return assignment


def _again_though_settled(_: Aloft, assignment: Assignment) -> Any:
    assignment.again[-1] = 2  # before the first that was received
    return assignment


BROKEN: dict[str, Callable[[Aloft, Assignment], Any]] = {
    "an output is not counted": _not_counted,
    "handlers wait although there is room": _full_with_room,
    "a publication is forgotten": _forgotten,
    "a publication overtakes another": _overtaken,
    "a message is left twice": _left_twice,
    "a handler waits for what is stored": _stored_without_word,
    "a record settles while its outputs are on their way": _settled_while_it_waits,
    "a record that is settled waits for another attempt": _again_though_settled,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_broken_invariant_is_noticed(
    switched_off: None, aloft: Make, broken: Callable[[Aloft, Assignment], Any]
) -> None:
    app = Octopus("app")

    @app.on("t", to="out")
    async def double(value: int) -> int:
        return 2 * value

    group = aloft(app)
    assignment = await group.begin(0)
    await group.submit(assignment, 1)
    for machine in (group.outputs, *group.outputs._flying, assignment):
        machine.check()
    machine = broken(group, assignment)
    with pytest.raises(AssertionError):
        machine.check()
