"""Hypothesis strategies for event patterns and events, as JSON text, made to meet each other often.

Matchers and scalars come from pools written out beforehand: one draw each, so that examples are cheap.
"""

import json
from itertools import pairwise, product

from hypothesis import strategies as st


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def listed(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def object_of(fields: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{quoted(name)}:{value}" for name, value in fields) + "}"


def operator(name: str, argument: str) -> str:
    return object_of([(name, argument)])


STRINGS = [
    *("", "a", "ab", "AB", "aB", "abc", "a*", "*", "a\\", "null", "5", "x\ny", "\U0001d11e", "\ue000"),
    *("é", "É", "e\u0301", "ß", "SS", "sS", "\u1e9e", "k", "K", "\u212a", "i", "ı", "İ", "i\u0307"),
    *("10.0.0.1", "10.0.0.01", "10.0.0.200", "10.0.0.256", "::1", "0:0::1", "2001:DB8::1", "2001:db8:0::1", "1::2::3"),
]
DOUBLES = [
    *("-9007199254740992", "-2.5", "-0", "0", "0.0", "5e-324", "1E-300", "0.1", "1e-1", "0.30000000000000004"),
    *("1", "1.0", "5", "5e0", "300", "3.0e2", "3E+2", "301.8", "9007199254740992", "9007199254740992.0"),
    *("1152921504606847000", "1e22", "1.7976931348623157e308"),
]
TEXT_ONLY = [
    *("9007199254740993", "9007199254740993.0", "9.007199254740993e15", "-9007199254740993", "1e400", "-1e400"),
    *("12345678901234567890", "12345678901234567890.0", "1152921504606846976", "1e-400", "0.10000000000000000001"),
    *("1" * 400, "1" * 400 + ".0"),
]
CONSTANTS = ["null", "true", "false"]
WILDCARDS = ["", "*", "a*", "*b", "a*c", "*a*b*", "a\\*", "\\\\", "A*", "*\n*", "*.*.*.1", "a?"]
NETWORKS = ["10.0.0.0/24", "10.0.0.7/25", "10.0.0.1/31", "::/64", "2001:db8::/32", "128.0.0.0/2"]


def one_or_two(values: list[str]) -> list[str]:
    return [*values, *map(listed, pairwise(values))]


TEXTS = list(map(quoted, STRINGS))
FOLDED = [operator("equals-ignore-case", text) for text in TEXTS]
RANGES = [
    f'["{low}",{least},"{high}",{most}]'
    for (least, most), low, high in product(zip(DOUBLES, DOUBLES[4:], strict=False), [">", ">="], ["<", "<="])
    if float(least) < float(most)
]
COMPARISONS = [f'["{sign}",{number}]' for sign, number in product(["=", "<", "<=", ">", ">="], DOUBLES)]
PORTABLE = [
    *(TEXTS + DOUBLES + TEXT_ONLY + CONSTANTS) * 2,
    *[operator("exists", present) for present in ("true", "false")] * 20,
    *FOLDED,
    *[operator("prefix", text) for text in TEXTS],
    *[operator("suffix", text) for text in TEXTS],
    *[operator("numeric", comparison) for comparison in RANGES + COMPARISONS],
    *[operator("anything-but", values) for values in one_or_two(TEXTS) + one_or_two(DOUBLES)],
]
OTHERS = [
    *[operator("exactly", text) for text in TEXTS],
    *[operator("prefix", text) for text in FOLDED],
    *[operator("suffix", text) for text in FOLDED],
    *[operator("wildcard", quoted(text)) for text in WILDCARDS] * 3,
    *[operator("cidr", quoted(text)) for text in NETWORKS] * 3,
    *[
        operator("anything-but", operator(name, texts))
        for name, values in {
            "prefix": one_or_two(TEXTS[1:]),
            "suffix": one_or_two(TEXTS[1:]),
            "equals-ignore-case": one_or_two(TEXTS),
            "wildcard": one_or_two(list(map(quoted, WILDCARDS))),
        }.items()
        for texts in values
    ],
]
MATCHERS = st.sampled_from(PORTABLE) | st.sampled_from(OTHERS)
SCALARS = st.sampled_from([*TEXTS, *DOUBLES, *TEXT_ONLY, *CONSTANTS * 4])
NAMES = st.sampled_from(["a", "a", "b", "b", "c", "a.b", "b.c", "a.b.c", "", "a!"])


def fields_of(values: st.SearchStrategy[str], most: int) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(NAMES, values), min_size=1, max_size=most)


def with_alternatives(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    plain = fields_of(values, most=2)
    alternatives = st.lists(plain.map(object_of), min_size=2, max_size=3).map(listed)
    return st.tuples(st.just([]) | plain, alternatives).map(lambda two: object_of([*two[0], ("$or", two[1])]))


def events_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.dictionaries(NAMES, values, max_size=3).map(lambda fields: object_of(list(fields.items())))


LEAVES = st.lists(MATCHERS, min_size=1, max_size=2).map(listed)
INNERMOST = LEAVES | fields_of(LEAVES, most=2).map(object_of)
INNER = LEAVES | fields_of(INNERMOST, most=2).map(object_of) | with_alternatives(INNERMOST)
PATTERNS = fields_of(INNER, most=3).map(object_of) | with_alternatives(INNER)

_VALUES = SCALARS
for _ in range(3):
    _VALUES = SCALARS | st.lists(_VALUES, max_size=3).map(listed) | events_of(_VALUES)
EVENTS = events_of(_VALUES)
