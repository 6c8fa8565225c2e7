"""Matching where an event has arrays: the values chosen for a rule's paths must come from one place.

`{"a": {"b": [1], "c": [2]}}` asks for b and c in the *same* element of a. So each value carries its
*chain*: which element of which array it was found in, from the outermost array inwards. Two values agree
unless their chains pass through different elements of one array.

The paths are taken in sorted order. The choice so far is a set of *places* (elements of arrays),
kept only as long as a later path may disagree with it, so that a long event costs its length and not the
product of its arrays. Absence (`exists: false`) is judged against the places chosen so far, not against
those still to come, as in the engine behind EventBridge rules.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from octopus.errors import DecodeError
from octopus.patterns.accept import Table
from octopus.patterns.numbers import RawNumber

#: An element of an array: (array, index); arrays are numbered as they are met.
Place = tuple[int, int]

#: The places around a value, outermost first.
Chain = tuple[Place, ...]

#: For each path, its scalars and where they stand.
Found = dict[str, list[tuple[object, Chain]]]

_FEW_STEPS = 10_000
_STEPS_PER_VALUE = 20

_NO_NAMES: dict[str, str] = {}
_SCALARS = frozenset({str, bool, int, float, RawNumber, type(None)})


@dataclass(frozen=True, slots=True)
class Requirement:
    """A rule's condition on one path; `absent` tells whether it may be missing."""

    path: str
    table: Table
    absent: bool


def sort_key(path: str) -> bytes:
    """Order paths by UTF-16 code units, as the engine does; it differs from Python's only beyond U+FFFF."""
    return path.encode("utf-16-be", "surrogatepass")


def prefixes(path: str) -> list[str]:
    """List the dotted prefixes of a path and the path itself: every name under which an event may lead to it."""
    return [path[:index] for index, character in enumerate(path) if character == "."] + [path]


def flatten(event: Mapping[str, object], alive: frozenset[str]) -> Found:
    """Collect the scalars of an event at every path in `alive`, never descending where none leads."""
    found: Found = {}
    inner_paths: dict[str, dict[str, str]] = {}  # by path and name, those alive: thousands of objects stand at one path
    for inner_path in alive:
        for end in [index for index, character in enumerate(inner_path) if character == "."]:
            inner_paths.setdefault(inner_path[:end], {})[inner_path[end + 1 :]] = inner_path
    arrays = 0
    stack: list[tuple[str, object, Chain]] = [(name, value, ()) for name, value in event.items() if name in alive]
    while stack:
        path, value, chain = stack.pop()
        if type(value) in _SCALARS:
            found.setdefault(path, []).append((value, chain))
        elif isinstance(value, dict):
            inner_names = inner_paths.get(path, _NO_NAMES)
            stack.extend([(inner_names[name], value[name], chain) for name in value if name in inner_names])
        elif isinstance(value, (list, tuple)):
            arrays += 1
            elements = [(path, inner, (*chain, (arrays, index))) for index, inner in enumerate(value)]
            stack.extend(reversed(elements))  # so that values are found in the order of the event
        else:
            found.setdefault(path, []).append((_plain(value), chain))
    return found


def satisfies(requirements: tuple[Requirement, ...], found: Found) -> bool:
    """Tell whether one choice of values satisfies every requirement; they come sorted by `sort_key`.

    Raises:
        DecodeError: An event mixes arrays under dotted and nested names so that the choices multiply.
    """
    # Tests cost least, and mostly decide: the steps after them look at accepted values only, which are few.
    accepted_chains: list[set[Chain]] = []
    for requirement in requirements:
        values, table = found.get(requirement.path, ()), requirement.table
        chains = {chain for value, chain in values if table[type(value)](value)}
        if not chains and not requirement.absent:
            return False
        accepted_chains.append(chains)
    if len(requirements) == 1 and accepted_chains[0]:
        return True  # there is nothing for it to agree with
    first_use: dict[int, int] = {}
    last_use: dict[int, int] = {}
    for index, (requirement, chains) in enumerate(zip(requirements, accepted_chains, strict=True)):
        # Absence is judged by everything that is there.
        for chain in [chain for _, chain in found.get(requirement.path, ())] if requirement.absent else chains:
            for array, _ in chain:
                first_use.setdefault(array, index)
                last_use[array] = index
    # An array that a single path looks into binds no other path: any of its elements will do.
    shared = {array for array, index in first_use.items() if index < last_use[array]}

    # Arrays within arrays are taken one after the other, so each value extends few choices, unless dotted
    # names put several arrays under one path. Such an event must not cost the product of their lengths.
    steps = 0
    most_steps = _FEW_STEPS + _STEPS_PER_VALUE * sum(map(len, found.values()))
    choices: set[frozenset[Place]] = {frozenset()}
    for index, requirement in enumerate(requirements):
        accepted = _Tree(accepted_chains[index], shared)
        values = found.get(requirement.path, ()) if requirement.absent else ()
        present = _Tree({chain for _, chain in values}, shared)
        following: set[frozenset[Place]] = set()
        for choice in choices:
            chosen = dict(choice)
            if requirement.absent and next(present.agreeing(chosen), None) is None:
                extended = [choice]
            else:
                extended = [choice.union(chain) for chain in accepted.agreeing(chosen)]
            following.update(frozenset(place for place in one if last_use[place[0]] > index) for one in extended)
            steps += len(extended)
            if steps > most_steps:
                raise DecodeError(
                    f"the arrays under {requirement.path!r} combine in more than {most_steps} ways, because the event "
                    "spells one path both dotted and nested; spell it one way"
                )
        if not following:
            return False
        choices = following
    return True


def accepts(table: Table, value: object) -> bool:
    """Apply a leaf to a scalar that `flatten` found."""
    return bool(table[type(value)](value))


class _Tree:
    """Chains by the places they pass through, so that chains which agree are found without trying the others."""

    __slots__ = ("_arrays", "_ends")

    def __init__(self, chains: Iterable[Chain] = (), arrays: Collection[int] = ()) -> None:
        """Plant the chains, as far as they pass through `arrays`."""
        self._ends: Chain | None = None
        self._arrays: dict[int, dict[int, _Tree]] = {}
        for chain in {tuple(place for place in chain if place[0] in arrays) for chain in chains}:
            node = self
            for array, index in chain:
                elements = node._arrays.setdefault(array, {})
                if index not in elements:
                    elements[index] = _Tree()
                node = elements[index]
            node._ends = chain

    def agreeing(self, chosen: Mapping[int, int]) -> Iterator[Chain]:
        """Yield the chains that pass through no other element of a chosen array."""
        stack = [self]
        while stack:
            node = stack.pop()
            if node._ends is not None:
                yield node._ends
            for array, elements in node._arrays.items():
                if array not in chosen:
                    stack.extend(elements.values())
                elif chosen[array] in elements:
                    stack.append(elements[chosen[array]])


def _plain(value: object) -> object:
    """Turn an instance of a subclass, such as an enumeration, into a type that JSON decoders return."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"{value!r} is not a decoded JSON value; match bytes, or what a JSON decoder returned")
