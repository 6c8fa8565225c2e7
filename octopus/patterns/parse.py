"""From a pattern's text or mapping to checked rules; every complaint names the place and the remedy.

The grammar and its rulings are those of Amazon EventBridge's event patterns as the engine behind it
reads them (github.com/aws/event-ruler): duplicate field names are not an error (the last leaf wins,
objects are merged), `a.b` is the same as a holding b, an alternative of `$or` overrides the same field
outside of it, and an array that is not a well-formed `$or` is an ordinary field of that name.
"""

import json
import math
from collections.abc import Mapping
from typing import Never

from octopus.errors import PatternError
from octopus.patterns import tree
from octopus.patterns.addresses import read_network
from octopus.patterns.numbers import RawNumber, read_number

#: Objects and lists nested deeper than this are refused: no event looks like that, and recursion stays shallow.
MAX_DEPTH = 100

#: `$or` multiplies: ten fields with an `$or` of two are 1,024 rules. Refuse before memory does.
MAX_RULES = 1024


class Object(tuple[tuple[str, "Node"], ...]):
    """A JSON object as its pairs, in order and with duplicates."""

    __slots__ = ()


Node = Object | list["Node"] | tree.Number | str | bool | None

_TOO_DEEP = f"the pattern nests deeper than {MAX_DEPTH} levels; flatten it"

_OPERATORS = frozenset(
    "exactly prefix suffix equals-ignore-case wildcard cidr exists numeric anything-but".split()  # noqa: SIM905
)
_TEXT_MATCHERS = frozenset({"prefix", "suffix", "equals-ignore-case", "wildcard"})
_BOUNDS = {">": "lower", ">=": "lower", "<": "upper", "<=": "upper"}


def read(pattern: Mapping[str, object] | str | bytes) -> Object:
    """Read JSON text or a Python mapping into pairs, keeping duplicate names and the text of numbers.

    Raises:
        PatternError: The text is not JSON, or a value has no place in a pattern.
    """
    root = _from_json(pattern) if isinstance(pattern, str | bytes) else _from_python(pattern, "", 0)
    _check_depth(root)
    if not isinstance(root, Object):
        raise PatternError('a pattern is a JSON object of fields, such as {"event": ["created"]}', pattern=pattern)
    return root


def write(node: Node) -> str:
    """Write the result of `read` as compact JSON with every name and number as it was spelled.

    Raises:
        PatternError: A string holds half of a surrogate pair, which no UTF-8 text can.
    """
    match node:
        case Object():
            return "{" + ",".join(f"{write(name)}:{write(value)}" for name, value in node) + "}"
        case list():
            return "[" + ",".join(write(value) for value in node) + "]"
        case tree.Number(text):
            return text
        case str() if any("\ud800" <= character <= "\udfff" for character in node):
            raise PatternError(f"{node!r} holds half of a surrogate pair; write the whole character")
        case _:
            return json.dumps(node, ensure_ascii=False)


def expand(root: Object) -> list[tree.Rule]:
    """Check the pattern and multiply out every `$or`.

    Returns:
        The rules, of which one must hold; each maps a dotted path to the matchers of its leaf.

    Raises:
        PatternError: The pattern breaks the grammar, or has too many alternatives.
    """
    rules: list[tree.Rule] = [{}]
    _expand_object(rules, root, path=None, where="")
    return rules


def _expand_object(rules: list[tree.Rule], fields: Object, path: str | None, where: str) -> None:
    if not fields:
        raise _refusal(
            where, 'an empty object asks for nothing; write a field with a list, such as {"event": ["created"]}'
        )
    for name, node in fields:
        inner_path = name if path is None else f"{path}.{name}"
        inner_where = f"{where}.{name}" if where else name
        if name == "$or" and isinstance(node, list) and _is_alternatives(node):
            rules[:] = _alternatives(rules, node, path, inner_where)
        elif isinstance(node, Object):
            _expand_object(rules, node, inner_path, inner_where)
        elif isinstance(node, list):
            leaf = _leaf(node, inner_where) if name != "$or" else _or_as_field(node, inner_where)
            for rule in rules:
                rule[inner_path] = leaf
        else:
            raise _refusal(inner_where, f"a bare value is not a matcher; write [{write(node)}]")


def _is_alternatives(nodes: list[Node]) -> bool:
    return len(nodes) >= 2 and all(
        isinstance(node, Object) and not any(is_reserved(name) for name, _ in node) for node in nodes
    )


def is_reserved(name: str) -> bool:
    """Tell whether a field of this name in an alternative makes `$or` an ordinary field."""
    return (
        name in _OPERATORS
        or name in {"=", "<", "<=", ">", ">=", "regex", "in-date-range"}
        or name.startswith(("not-", "date-", "ip-address-"))
    )


def _or_as_field(nodes: list[Node], where: str) -> tree.Leaf:
    try:
        return _leaf(nodes, where)
    except PatternError as error:
        reason = "$or takes two or more objects, no field of which is named like an operator; as an ordinary field"
        raise _refusal(error.path, f"{reason}, {error.reason}") from None


def _alternatives(rules: list[tree.Rule], nodes: list[Node], path: str | None, where: str) -> list[tree.Rule]:
    expanded: list[tree.Rule] = []
    for index, node in enumerate(nodes):
        assert isinstance(node, Object)
        alternative = [dict(rule) for rule in rules]
        _expand_object(alternative, node, path, f"{where}[{index}]")
        expanded += alternative
        if len(expanded) > MAX_RULES:
            raise _refusal(
                where, f"the $or alternatives multiply to more than {MAX_RULES} rules; write fewer, or list values"
            )
    return expanded


def _leaf(nodes: list[Node], where: str) -> tree.Leaf:
    if not nodes:
        raise _refusal(
            where, 'an empty list matches nothing; for null write [null], for an absent field [{"exists": false}]'
        )
    return tuple(_matcher(node, where) for node in nodes)


def _matcher(node: Node, where: str) -> tree.Matcher:
    match node:
        case Object():
            return _operator(node, where)
        case list():
            raise _refusal(where, "a list inside of a list is not a matcher; write its values in the outer list")
        case tree.Number():
            return node
        case _:
            return tree.Literal(node)


def _operator(node: Object, where: str) -> tree.Matcher:
    if len(node) != 1:
        raise _refusal(
            where, f"a matcher has exactly one operator, not {len(node)}; write each in an object of its own"
        )
    ((name, value),) = node
    match name:
        case "exactly":
            return tree.Exactly(_string(value, where, name))
        case "prefix" | "suffix":
            kind = tree.Prefix if name == "prefix" else tree.Suffix
            if isinstance(value, Object):
                return kind(_ignored_case(value, where, name), ignore_case=True)
            return kind(_string(value, where, name))
        case "equals-ignore-case":
            return tree.EqualsIgnoreCase(_string(value, where, name))
        case "wildcard":
            return tree.Wildcard(_wildcard(_string(value, where, name), where))
        case "cidr":
            return tree.Cidr(_cidr(_string(value, where, name), where))
        case "exists":
            if not isinstance(value, bool):
                raise _refusal(where, f"exists is true or false, not {write(value)}")
            return tree.Exists(value)
        case "numeric":
            return _numeric(value, where)
        case "anything-but":
            return _anything_but(value, where)
        case _:
            raise _refusal(where, f"{name!r} is not an operator; the operators are {', '.join(sorted(_OPERATORS))}")


def _string(value: Node, where: str, name: str) -> str:
    if not isinstance(value, str):
        raise _refusal(where, f"{name} takes a string, not {write(value)}")
    return value


def _ignored_case(value: Object, where: str, name: str) -> str:
    if len(value) != 1 or value[0][0] != "equals-ignore-case":
        raise _refusal(where, f'{name} takes a string or {{"equals-ignore-case": …}}, not {write(value)}')
    return _string(value[0][1], where, f"{name} with equals-ignore-case")


def _wildcard(text: str, where: str) -> str:
    escaped = starred = False
    for character in text:
        if escaped:
            if character not in "*\\":
                raise _refusal(where, rf"the wildcard {text!r} escapes {character!r}; only \* and \\ are escapes")
            escaped = False
        elif character == "\\":
            escaped, starred = True, False
        elif character == "*" and starred:
            raise _refusal(where, f"the wildcard {text!r} has two stars in a row; one matches as much")
        else:
            starred = character == "*"
    if escaped:
        raise _refusal(where, rf"the wildcard {text!r} ends in a lone backslash; write \\ for a backslash")
    return text


def _cidr(text: str, where: str) -> str:
    try:
        read_network(text)
    except ValueError as error:
        raise _refusal(where, f"cidr: {error}") from None
    return text


def _numeric(value: Node, where: str) -> tree.Numeric:
    form = 'write ["=", n], ["<", n] or [">=", low, "<", high]'
    if not isinstance(value, list) or len(value) not in (2, 4):
        raise _refusal(where, f"numeric takes one comparison or a range, not {write(value)}; {form}")
    comparisons = []
    for operator, number in zip(value[::2], value[1::2], strict=True):
        if not isinstance(operator, str) or (operator != "=" and operator not in _BOUNDS):
            raise _refusal(where, f"numeric compares with =, <, <=, > or >=, not {write(operator)}; {form}")
        comparisons.append((operator, _representable(number, where, "numeric")))
    if len(comparisons) == 2:
        (low, least), (high, most) = comparisons
        if (_BOUNDS.get(low), _BOUNDS.get(high)) != ("lower", "upper"):
            raise _refusal(where, f"a numeric range has its lower bound first and then its upper bound; {form}")
        if float(least.text) >= float(most.text):
            raise _refusal(
                where, f'the numeric range from {least.text} to {most.text} is empty; for one value write ["=", n]'
            )
    return tree.Numeric(tuple(comparisons))


def _representable(node: Node, where: str, name: str) -> tree.Number:
    if not isinstance(node, tree.Number):
        raise _refusal(where, f"{name} takes numbers here, not {write(node)}")
    if isinstance(read_number(node.text), RawNumber):
        raise _refusal(where, f"{name}: no double represents {node.text}; write a number with at most 15 digits")
    return node


def _anything_but(value: Node, where: str) -> tree.AnythingBut:
    if isinstance(value, Object):
        return _anything_but_operator(value, where)
    values = value if isinstance(value, list) else [value]
    strings = tuple(one for one in values if isinstance(one, str))
    numbers = tuple(one for one in values if isinstance(one, tree.Number))
    if values and len(strings) == len(values):
        return tree.AnythingBut(strings)
    if values and len(numbers) == len(values):
        return tree.AnythingBut(tuple(_representable(one, where, "anything-but") for one in numbers))
    raise _refusal(where, f"anything-but takes strings only or numbers only, at least one, not {write(value)}")


def _anything_but_operator(value: Object, where: str) -> tree.AnythingBut:
    if len(value) != 1 or value[0][0] not in _TEXT_MATCHERS:
        raise _refusal(where, f"anything-but takes one of {', '.join(sorted(_TEXT_MATCHERS))}, not {write(value)}")
    ((name, given),) = value
    texts = tuple(
        _string(one, where, f"anything-but with {name}") for one in (given if isinstance(given, list) else [given])
    )
    if not texts:
        raise _refusal(where, f"anything-but with {name} has an empty list; write what is refused")
    if name in ("prefix", "suffix") and "" in texts:
        raise _refusal(where, f"anything-but with an empty {name} refuses every string; name one")
    if name == "wildcard":
        texts = tuple(_wildcard(text, where) for text in texts)
    return tree.AnythingBut(texts, name)


def _refusal(where: str, reason: str) -> PatternError:
    return PatternError(reason, path=where)


def _check_depth(root: Node) -> None:
    """Walk without recursion, so that the functions above may recurse without fear."""
    level: list[Node] = [root]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for node in level for inner in _inside(node)]
        if not level:
            return
    raise _refusal("", _TOO_DEEP)


def _inside(node: Node) -> list[Node]:
    match node:
        case Object():
            return [value for _, value in node]
        case list():
            return node
        case _:
            return []


def _from_json(text: str | bytes) -> Node:
    try:
        decoded = text if isinstance(text, str) else text.decode()
        node: Node = json.loads(
            decoded,
            object_pairs_hook=Object,
            parse_int=tree.Number,
            parse_float=tree.Number,
            parse_constant=_no_constant,
        )
    except ValueError as error:  # both JSONDecodeError and UnicodeDecodeError
        raise PatternError(f"the pattern is not JSON: {error}", pattern=text) from error
    except RecursionError as error:
        raise PatternError(_TOO_DEEP, pattern=text) from error
    return node


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a JSON number")


def _from_python(value: object, where: str, depth: int) -> Node:
    if depth > MAX_DEPTH:  # also ends a mapping that contains itself
        raise _refusal("", _TOO_DEEP)
    match value:
        case None | bool() | str():
            return value
        case int():
            return tree.Number(str(value))
        case float():
            if not math.isfinite(value):
                raise _refusal(where, f"{value!r} is not a JSON number; write a finite one")
            return tree.Number(repr(value))
        case list() | tuple():
            return [_from_python(one, where, depth + 1) for one in value]
        case Mapping():
            return Object(_pair(name, one, where, depth + 1) for name, one in value.items())
        case _:
            raise _refusal(
                where, f"{value!r} has no place in a pattern; write strings, numbers, true, false, null, lists, objects"
            )


def _pair(name: object, value: object, where: str, depth: int) -> tuple[str, Node]:
    if not isinstance(name, str):
        raise _refusal(where, f"a field's name is a string, not {name!r}")
    return name, _from_python(value, f"{where}.{name}" if where else name, depth)
