"""Which values a leaf accepts: a table from the value's type to a test, built once per leaf.

The type is looked up before anything is compared, so that `1 == True` never matters, and the test that
the table names has only its own type to deal with.
"""

import math
import re
from collections.abc import Callable
from operator import methodcaller
from typing import Any

from msgspec import UnsetType

from octopus.patterns import tree
from octopus.patterns.addresses import read_address, read_network
from octopus.patterns.numbers import MAX_EXACT_INTEGER, RawNumber, read_integer, read_number

#: Answers by truth: some are `re.Pattern.match`, which returns a match or None.
Test = Callable[[Any], object]

#: The test for each type of value that may stand at a leaf; `UnsetType` is an absent field, and so is an object.
Table = dict[type, Test]

_LARGEST = math.nextafter(math.inf, 0)


def build_table(leaf: tree.Leaf) -> Table:
    """Compile a leaf into one test for each type of JSON scalar."""
    exists = tree.Exists(True) in leaf
    # Anything-but accepts every value of another type than the ones it lists.
    other = exists or any(isinstance(matcher, tree.AnythingBut) for matcher in leaf)
    number, raw = _number_tests(leaf, exists)
    absent = _yes if tree.Exists(False) in leaf else _no
    return {
        str: _string_test(leaf, exists),
        int: _integer_test(leaf, number, raw),
        float: number,
        RawNumber: raw,
        bool: frozenset(value for value in (True, False) if other or tree.Literal(value) in leaf).__contains__,
        type(None): _yes if other or tree.Literal(None) in leaf else _no,
        dict: absent,
        UnsetType: absent,
    }


def _yes(_: object) -> bool:
    return True


def _no(_: object) -> bool:
    return False


def _any_of(tests: list[Test]) -> Test:
    match tests:
        case []:
            return _no
        case [test]:
            return test
        case [first, second]:
            return lambda value: first(value) or second(value)
        case _:
            return lambda value: any(test(value) for test in tests)


# --- strings


def _string_test(leaf: tree.Leaf, exists: bool) -> Test:
    if exists or any(isinstance(matcher, tree.AnythingBut) and not _refuses_strings(matcher) for matcher in leaf):
        return _yes
    exact = {matcher.text for matcher in leaf if isinstance(matcher, tree.Exactly)}
    literals = {
        matcher.value for matcher in leaf if isinstance(matcher, tree.Literal) and isinstance(matcher.value, str)
    }
    tests: list[Test] = []
    if exact or literals:
        tests.append(frozenset(exact | literals).__contains__)
    tests += _affix_tests(leaf)
    tests += [test for matcher in leaf if (test := _text_test(matcher)) is not None]
    addresses = frozenset(address for text in literals if (address := read_address(text)) is not None)
    if addresses:
        tests.append(lambda value: read_address(value) in addresses)
    return _any_of(tests)


def _refuses_strings(refusal: tree.AnythingBut) -> bool:
    return isinstance(refusal.values[0], str)


def _affix_tests(leaf: tree.Leaf) -> list[Test]:
    # A slice compares in half the time of a method call; several prefixes at once pay for the call into C.
    prefixes = tuple(matcher.text for matcher in leaf if isinstance(matcher, tree.Prefix) and not matcher.ignore_case)
    suffixes = tuple(matcher.text for matcher in leaf if isinstance(matcher, tree.Suffix) and not matcher.ignore_case)
    if "" in prefixes + suffixes:
        return [_yes]
    tests: list[Test] = []
    match prefixes:
        case []:
            pass
        case [prefix]:
            tests.append(_part_test(slice(len(prefix)), prefix))
        case _:
            tests.append(methodcaller("startswith", prefixes))
    match suffixes:
        case []:
            pass
        case [suffix]:
            tests.append(_part_test(slice(-len(suffix), None), suffix))
        case _:
            tests.append(methodcaller("endswith", suffixes))
    return tests


def _part_test(part: slice, text: str) -> Test:
    return lambda value: value[part] == text


def _text_test(matcher: tree.Matcher) -> Test | None:
    match matcher:
        case tree.EqualsIgnoreCase(text):
            return _folded_test(text, slice(None), r"%s\Z")
        case tree.Prefix(text, ignore_case=True):
            return _folded_test(text, slice(len(text)), r"%s")
        case tree.Suffix(text, ignore_case=True):
            return _folded_test(text, slice(-len(text), None), r"(?s:.*)%s\Z") if text else _yes
        case tree.Wildcard(text):
            return _wildcard_test(text)
        case tree.Cidr(text):
            return _network_test(text)
        case tree.AnythingBut(values, name) if _refuses_strings(matcher):
            return _refusal_test([value for value in values if isinstance(value, str)], name)
        case _:
            return None


def _folded_test(text: str, part: slice, expression: str) -> Test:
    """Compare `part` of a value: each character of the pattern accepts its lower case and its upper case, no more.

    Which is not symmetric: a pattern's ß accepts SS, a pattern's K does not accept the Kelvin sign.
    """
    if text.isascii():  # then only ASCII can be the other case, and slices have the pattern's length
        lowered = text.lower()
        return lambda value: (given := value[part]).isascii() and given.lower() == lowered
    # The two cases of a character never begin alike when they differ in length, so nothing here backtracks.
    characters = "".join(f"(?:{re.escape(one.lower())}|{re.escape(one.upper())})" for one in text)
    return re.compile(expression % characters).match


def _wildcard_test(text: str) -> Test:
    """Look for the pieces between the stars from left to right: linear, where a regular expression backtracks."""
    first, *rest = split_wildcard(text)
    if not rest:
        return first.__eq__
    *middle, last = rest
    shortest = len(first) + len(last)

    def test(value: str) -> bool:
        if len(value) < shortest or not value.startswith(first) or not value.endswith(last):
            return False
        position, end = len(first), len(value) - len(last)
        for piece in middle:
            position = value.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True

    return test


def split_wildcard(text: str) -> list[str]:
    """Split a checked wildcard at its stars and undo its escapes."""
    pieces = [""]
    characters = iter(text)
    for character in characters:
        if character == "*":
            pieces.append("")
        else:
            pieces[-1] += next(characters) if character == "\\" else character
    return pieces


def _network_test(text: str) -> Test:
    version, first, last = read_network(text)

    def test(value: str) -> bool:
        address = read_address(value)
        return address is not None and address[0] == version and first <= address[1] <= last

    return test


_OPERATORS: dict[str, type[tree.Prefix] | type[tree.Suffix] | type[tree.EqualsIgnoreCase] | type[tree.Wildcard]] = {
    "prefix": tree.Prefix,
    "suffix": tree.Suffix,
    "equals-ignore-case": tree.EqualsIgnoreCase,
    "wildcard": tree.Wildcard,
}


def _refusal_test(texts: list[str], name: str) -> Test:
    if not name:
        refused = frozenset(texts)
        return lambda value: value not in refused
    accepts = _string_test(tuple(_OPERATORS[name](text) for text in texts), exists=False)
    return lambda value: not accepts(value)


# --- numbers


def _number_tests(leaf: tree.Leaf, exists: bool) -> tuple[Test, Test]:
    """Build the tests of doubles and of numbers that are no doubles."""
    refusals = [matcher for matcher in leaf if isinstance(matcher, tree.AnythingBut)]
    if exists or any(_refuses_strings(refusal) for refusal in refusals):
        return _yes, _yes
    literals = [read_number(matcher.text) for matcher in leaf if isinstance(matcher, tree.Number)]
    doubles = frozenset(number for number in literals if isinstance(number, float))
    raw = frozenset(number for number in literals if isinstance(number, RawNumber))
    tests: list[Test] = [doubles.__contains__] if doubles else []
    tests += [_range_test(*closed_interval(matcher)) for matcher in leaf if isinstance(matcher, tree.Numeric)]
    for refusal in refusals:
        tests.append(
            _not_in(frozenset(float(value.text) for value in refusal.values if isinstance(value, tree.Number)))
        )
    return _any_of(tests), _yes if refusals else raw.__contains__ if raw else _no


def closed_interval(numeric: tree.Numeric) -> tuple[float, float]:
    """Give the least and the greatest double that satisfy every comparison."""
    low, high = -_LARGEST, _LARGEST
    for operator, number in numeric.comparisons:
        bound = float(number.text)
        match operator:
            case "=":
                low = high = bound
            case ">":
                low = math.nextafter(bound, math.inf)
            case ">=":
                low = bound
            case "<":
                high = math.nextafter(bound, -math.inf)
            case "<=":
                high = bound
    return low, high


def _range_test(low: float, high: float) -> Test:
    return lambda value: low <= value <= high


def _not_in(refused: frozenset[float]) -> Test:
    return lambda value: value not in refused


def _integer_test(leaf: tree.Leaf, number: Test, raw: Test) -> Test:
    if number is raw:  # both _yes or both _no
        return number

    def test(value: int) -> object:
        if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER:
            return number(value)
        exact = read_integer(value)
        return raw(exact) if isinstance(exact, RawNumber) else number(exact)

    match leaf:
        case [tree.Numeric() as numeric]:  # the usual case, worth one call less
            low, high = closed_interval(numeric)
            least, most = max(low, -MAX_EXACT_INTEGER), min(high, MAX_EXACT_INTEGER)
            return lambda value: least <= value <= most or ((low < least or most < high) and test(value))
        case _:
            return test
