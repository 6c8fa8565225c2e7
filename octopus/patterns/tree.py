"""A pattern, once parsed: matchers at paths.

A leaf of the pattern is a tuple of *matchers*, any of which may accept a value; a *rule* is a leaf for
each path, all of which must be satisfied; a pattern is one or more rules (`$or` is multiplied out),
any of which may hold.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written: its text decides where a double cannot."""

    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, true, false or null standing for itself."""

    value: str | bool | None


@dataclass(frozen=True, slots=True)
class Exactly:
    text: str


@dataclass(frozen=True, slots=True)
class Prefix:
    text: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Suffix:
    text: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class EqualsIgnoreCase:
    text: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    text: str


@dataclass(frozen=True, slots=True)
class Cidr:
    text: str


@dataclass(frozen=True, slots=True)
class Exists:
    present: bool


@dataclass(frozen=True, slots=True)
class Numeric:
    """One or two comparisons, each an operator and the text of a number."""

    comparisons: tuple[tuple[str, Number], ...]


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """None of the values: strings or numbers themselves, or `operator` applied to the strings."""

    values: tuple[str, ...] | tuple[Number, ...]
    operator: str = ""


Matcher = (
    Literal | Number | Exactly | Prefix | Suffix | EqualsIgnoreCase | Wildcard | Cidr | Exists | Numeric | AnythingBut
)
Leaf = tuple[Matcher, ...]
Rule = dict[str, Leaf]


def to_json(matcher: Matcher) -> str:
    """Write a matcher as it stands in a pattern."""
    match matcher:
        case Number(text):
            return text
        case Literal(value):
            return _json(value)
        case Exactly(text):
            return f'{{"exactly":{_json(text)}}}'
        case Prefix(text, ignore_case):
            return f'{{"prefix":{_folded(text) if ignore_case else _json(text)}}}'
        case Suffix(text, ignore_case):
            return f'{{"suffix":{_folded(text) if ignore_case else _json(text)}}}'
        case EqualsIgnoreCase(text):
            return _folded(text)
        case Wildcard(text):
            return f'{{"wildcard":{_json(text)}}}'
        case Cidr(text):
            return f'{{"cidr":{_json(text)}}}'
        case Exists(present):
            return f'{{"exists":{_json(present)}}}'
        case Numeric(comparisons):
            bounds = ",".join(f"{_json(operator)},{number.text}" for operator, number in comparisons)
            return f'{{"numeric":[{bounds}]}}'
        case AnythingBut(values, operator):
            listed = ",".join(value.text if isinstance(value, Number) else _json(value) for value in values)
            refused = f"[{listed}]" if len(values) > 1 else listed
            return (
                f'{{"anything-but":{{{_json(operator)}:{refused}}}}}' if operator else f'{{"anything-but":{refused}}}'
            )


def _folded(text: str) -> str:
    return f'{{"equals-ignore-case":{_json(text)}}}'


def _json(value: str | bool | None) -> str:
    return json.dumps(value, ensure_ascii=False)
