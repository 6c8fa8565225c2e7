"""Event patterns read straight from their rules: slow, short, and sharing nothing with the compiled code.

The oracle of the property tests. It takes valid patterns only.
"""

import ipaddress
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple


class Number(NamedTuple):
    text: str


class Pairs(list[tuple[str, Any]]):
    """A JSON object with its duplicates."""


def matches(pattern: str, event: str) -> bool:
    decoded = json.loads(event, parse_int=Number, parse_float=Number)
    if not isinstance(decoded, dict):
        return False
    read = json.loads(pattern, parse_int=Number, parse_float=Number, object_pairs_hook=Pairs)
    scalars = list(scan(decoded, "", {}, []))
    return any(search(sorted(rule.items()), scalars, {}) for rule in rules_of(read, "", [{}]))


# --- the pattern's rules: path → matchers


def rules_of(pattern: Pairs, prefix: str, rules: list[dict[str, list]]) -> list[dict[str, list]]:
    for name, node in pattern:
        if name == "$or" and isinstance(node, list) and not isinstance(node, Pairs) and is_or(node):
            rules = [rule for alternative in node for rule in rules_of(alternative, prefix, rules)]
        elif isinstance(node, Pairs):
            rules = rules_of(node, f"{prefix}{name}.", rules)
        else:
            rules = [{**rule, f"{prefix}{name}": node} for rule in rules]
    return rules


def is_or(alternatives: list) -> bool:
    reserved = re.compile(
        r"exactly|prefix|suffix|equals-ignore-case|wildcard|cidr|exists|numeric|anything-but"
        r"|=|<|<=|>|>=|regex|not-.*|date-.*|in-date-range|ip-address-.*"
    )
    return len(alternatives) >= 2 and all(
        isinstance(one, Pairs) and not any(reserved.fullmatch(name) for name, _ in one) for one in alternatives
    )


# --- the event's scalars: path, value, {array: index}


def scan(value: Any, path: str, where: dict[int, int], arrays: list) -> Iterator[tuple[str, Any, dict[int, int]]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from scan(inner, f"{path}.{name}", where, arrays)
    elif isinstance(value, list):
        arrays.append(None)
        array = len(arrays)
        for index, inner in enumerate(value):
            yield from scan(inner, path, {**where, array: index}, arrays)
    else:
        yield path[1:], value, where


def search(rule: list[tuple[str, list]], scalars: list[tuple[str, Any, dict]], chosen: dict[int, int]) -> bool:
    if not rule:
        return True
    (path, matchers), *rest = rule
    here = [
        (value, where)
        for at, value, where in scalars
        if at == path and all(chosen.get(array, index) == index for array, index in where.items())
    ]
    if not here:
        absent_is_fine = any(operator_of(matcher) == ("exists", False) for matcher in matchers)
        return absent_is_fine and search(rest, scalars, chosen)
    return any(
        search(rest, scalars, {**chosen, **where})
        for value, where in here
        if any(accepts(matcher, value) for matcher in matchers)
    )


# --- one matcher, one scalar


def operator_of(matcher: Any) -> tuple[str, Any]:
    return matcher[0] if isinstance(matcher, Pairs) else ("", matcher)


def accepts(matcher: Any, value: Any) -> bool:
    name, argument = operator_of(matcher)
    text = value if isinstance(value, str) else None
    match name:
        case "":
            return equal(argument, value)
        case "exists":
            return argument is True
        case "anything-but":
            return not refused(argument, value)
        case "numeric":
            return isinstance(value, Number) and in_range(argument, value)
        case "exactly":
            return text == argument
        case "cidr":
            return text is not None and in_network(argument, text)
        case _:
            return text is not None and like(name, argument, text)


def equal(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, Number):
        if not isinstance(value, Number):
            return False
        both = is_double(wanted) and is_double(value)
        return wanted.text == value.text or (both and float(wanted.text) == float(value.text))
    if isinstance(wanted, str) and isinstance(value, str):
        return wanted == value or (address(wanted) is not None and address(wanted) == address(value))
    return wanted is value  # true, false, null


def is_double(number: Number) -> bool:
    return Decimal(number.text) == Decimal(repr(float(number.text)))


def in_range(comparisons: list, value: Number) -> bool:
    if not is_double(value):
        return False
    given = float(value.text)
    for sign, bound in zip(comparisons[::2], comparisons[1::2], strict=True):
        limit = float(bound.text)
        holds = {
            "=": given == limit,
            "<": given < limit,
            "<=": given <= limit,
            ">": given > limit,
            ">=": given >= limit,
        }
        if not holds[sign]:
            return False
    return True


def refused(argument: Any, value: Any) -> bool:
    if isinstance(argument, Pairs):
        ((name, texts),) = argument
        texts = texts if isinstance(texts, list) else [texts]
        return isinstance(value, str) and any(like(name, text, value) for text in texts)
    listed = argument if isinstance(argument, list) else [argument]
    if isinstance(value, str):
        return value in listed
    return isinstance(value, Number) and any(isinstance(one, Number) and equal(one, value) for one in listed)


def like(name: str, argument: Any, text: str) -> bool:
    folded = isinstance(argument, Pairs)
    wanted = argument[0][1] if folded else argument
    match name:
        case "equals-ignore-case":
            return same_letters(wanted, text)
        case "prefix" if folded:
            return any(same_letters(wanted, text[:end]) for end in range(len(text) + 1))
        case "suffix" if folded:
            return any(same_letters(wanted, text[start:]) for start in range(len(text) + 1))
        case "prefix":
            return text.startswith(wanted)
        case "suffix":
            return text.endswith(wanted)
        case "wildcard":
            return wild(wanted, text)
    raise AssertionError(name)


def same_letters(wanted: str, text: str) -> bool:
    if not wanted:
        return not text
    cases = {wanted[0].lower(), wanted[0].upper()}
    return any(text.startswith(case) and same_letters(wanted[1:], text[len(case) :]) for case in cases)


def wild(wanted: str, text: str) -> bool:
    if not wanted:
        return not text
    if wanted[0] == "*":
        return any(wild(wanted[1:], text[start:]) for start in range(len(text) + 1))
    if wanted[0] == "\\":
        wanted = wanted[1:]
    return text[:1] == wanted[0] and wild(wanted[1:], text[1:])


def address(text: str) -> Any:
    if re.fullmatch(r"\d+(\.\d+){3}", text, re.ASCII):
        text = ".".join(str(int(octet)) for octet in text.split("."))
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def in_network(network: str, text: str) -> bool:
    found = address(text)
    return found is not None and found in ipaddress.ip_network(network, strict=False)
