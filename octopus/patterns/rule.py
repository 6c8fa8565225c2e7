"""Rules as one predicate: a short loop for plain events, the array algorithm for the rest.

Most events are objects of scalars, most rules look at a few top-level fields; then a rule is one `dict.get`,
one table look-up and one test per field. The loop notices events for which that would be wrong (a list that other paths
lead through, a dotted name that may stand for nested objects, a foreign type) and leaves them to
`arrays.satisfies`, which is right for every event.
"""

from collections.abc import Callable
from operator import methodcaller
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from octopus.patterns.accept import Table, Test, build_table
from octopus.patterns.arrays import Requirement, flatten, satisfies, sort_key
from octopus.patterns.tree import Exists, Leaf, Rule

Event = dict[str, Any]
Predicate = Callable[[Event], bool]

_Undecided = TypeVar("_Undecided")

_UNSURE = object()


def requirements_of(rules: list[Rule]) -> list[tuple[Requirement, ...]]:
    """Compile the leaves of the rules, each rule in its order of evaluation; equal leaves share one table."""
    tables: dict[Leaf, Table] = {}
    for rule in rules:
        for leaf in rule.values():
            if leaf not in tables:
                tables[leaf] = build_table(leaf)
    return [
        tuple(Requirement(path, tables[rule[path]], Exists(False) in rule[path]) for path in sorted(rule, key=sort_key))
        for rule in rules
    ]


def build_predicate(rules: list[tuple[Requirement, ...]], alive: frozenset[str]) -> Predicate:
    """Join rules, of which one must hold, into a predicate of a decoded JSON object.

    Args:
        rules: From `requirements_of`.
        alive: Every dotted prefix of their paths: the parts of an event to look at.
    """
    if len(rules) == 1:
        (requirements,) = rules
        return _build_quick(requirements, lambda event: satisfies(requirements, flatten(event, alive)))

    # The arrays are looked into once, after every rule that could be decided without them.
    pairs = [(_build_quick(requirements, _unsure), requirements) for requirements in rules]

    def several(event: Event) -> bool:
        undecided = []
        for quick, requirements in pairs:
            verdict = quick(event)
            if verdict:
                return True
            if verdict is None:
                undecided.append(requirements)
        if not undecided:
            return False
        found = flatten(event, alive)
        return any(satisfies(requirements, found) for requirements in undecided)

    return several


def _unsure(_: Event) -> None:
    return None


def _build_quick(
    requirements: tuple[Requirement, ...], otherwise: Callable[[Event], _Undecided]
) -> Callable[[Event], bool | _Undecided]:
    """Build the short loop; it asks `otherwise` about an event it cannot decide."""
    top = tuple((one.path, *_likeliest(one.table)) for one in requirements if "." not in one.path)
    nested = tuple(one for one in requirements if "." in one.path)
    check_all = _build_check(requirements, requirements, otherwise)
    check_nested = _build_check(nested, requirements, otherwise)
    if not top:
        return check_all
    (first, first_likely, first_accepts), *rest = top

    def quick(event: Event) -> bool | _Undecided:
        # The first field by itself: it decides about most events that do not match.
        value = event.get(first)
        if type(value) is not first_likely:  # null and an absent field among others
            return check_all(event)
        if not first_accepts(value):
            return False
        for name, likely, accepts in rest:
            value = event.get(name)
            if type(value) is not likely:
                return check_all(event)
            if not accepts(value):
                return False
        return not nested or check_nested(event)

    return quick


def _likeliest(table: Table) -> tuple[type, Test]:
    """Guess the type that the leaf was written for, to spare the look-up."""
    kind = next((kind for kind in (str, int, bool) if table[kind] is not table[dict]), str)
    return kind, table[kind]


def _build_check(
    some: tuple[Requirement, ...], requirements: tuple[Requirement, ...], otherwise: Callable[[Event], _Undecided]
) -> Callable[[Event], bool | _Undecided]:
    """Build the check of some of a rule's requirements by the tables, for values of every type."""

    def is_alone(path: str) -> bool:
        """Tell whether no other path leads through this one: then a list here binds no other path."""
        return not any(other.path.startswith(f"{path}.") for other in requirements)

    checks = tuple((_build_finder(one.path), one.table, is_alone(one.path)) for one in some)

    def check(event: Event) -> bool | _Undecided:
        for find, table, alone in checks:
            value = find(event)
            test = table.get(type(value))
            if test is None:
                verdict = _any_element(value, table) if alone else None
                if verdict is None:
                    return otherwise(event)
                if not verdict:
                    return False
            elif not test(value):
                return False
        return True

    return check if checks else _nothing_left


def _nothing_left(_: Event) -> bool:
    return True


def _build_finder(path: str) -> Callable[[Event], object]:
    """Build a walk down nested objects that notices where a dotted name would lead to the same path."""
    *steps, last = path.split(".")
    if not steps:
        return methodcaller("get", path, UNSET)
    names = [*steps, last]
    hops = tuple(
        (step, tuple(".".join(names[start:end]) for end in range(start + 2, len(names) + 1)))
        for start, step in enumerate(steps)
    )

    def find(event: Event) -> object:
        node = event
        for step, aliases in hops:
            for alias in aliases:
                if alias in node:
                    return _UNSURE
            inner = node.get(step, UNSET)
            if type(inner) is not dict:
                return UNSET if type(inner) in _LEAVES else _UNSURE
            node = inner
        return node.get(last, UNSET)

    return find


_LEAVES = frozenset(build_table(())) - {dict}


def _any_element(value: object, table: Table) -> bool | None:
    """Apply a leaf to the elements of a list, which may hold lists; objects among them lead elsewhere."""
    if type(value) is not list:
        return None
    empty = True
    stack = [value]
    while stack:
        for element in stack.pop():
            kind = type(element)
            if kind is list:
                stack.append(element)
            elif kind is not dict:
                test = table.get(kind)
                if test is None:
                    return None
                if test(element):
                    return True
                empty = False
    return empty and bool(table[UnsetType](UNSET))
