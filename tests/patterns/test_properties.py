"""What holds for every pattern and every event: compiled code against the naive reading of the rules."""

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from octopus.errors import PatternError
from octopus.patterns import Pattern, index_patterns
from tests.patterns import naive
from tests.patterns.generated import EVENTS, PATTERNS

broad = settings(max_examples=120, deadline=None)
dense = settings(max_examples=250, deadline=None)

# A small world of arrays and absence, where most events have something to do with most patterns.
TINY = st.sampled_from(
    ["[1]", "[2]", '[{"exists":false}]', '[{"exists":false},1]', '[{"wildcard":"*"}]', '[{"anything-but":1}]']
)
PATHS = st.sampled_from(["a", "a.b", "a.c", "a.d", "a.b.c", "a.b.d", "b", "a-", "a-.b"])
ARRAY_RULES = st.dictionaries(PATHS, TINY, min_size=1, max_size=4)
ARRAY_PATTERNS = ARRAY_RULES.map(
    lambda rule: "{" + ",".join(f'"{path}":{leaf}' for path, leaf in rule.items()) + "}"
)  # fmt: skip
ARRAY_OR_PATTERNS = st.lists(ARRAY_PATTERNS, min_size=2, max_size=3).map(lambda some: f'{{"$or":[{",".join(some)}]}}')
ARRAY_EVENTS = st.recursive(
    st.sampled_from([1, 2, "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "d", "b.c", "a-"]), inner, max_size=3)
    ),
    max_leaves=10,
).map(lambda value: json.dumps({"a": value, "b": 1}))

# Where one field tells many patterns apart.
TEXTS = st.sampled_from(['"x"', '"y"', '{"exactly":"z"}', "null", "1", '{"prefix":"x"}'])
TEXT_PATTERNS = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]), st.lists(TEXTS, min_size=1, max_size=2), min_size=1
).map(lambda rule: "{" + ",".join(f'"{path}":[{",".join(leaf)}]' for path, leaf in rule.items()) + "}")
TEXT_EVENTS = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]), st.sampled_from(["x", "y", "z", None, 1, ["x", "z"], {"b": "x"}])
).map(json.dumps)


def decode(event: str) -> Any:
    """Decode as JSON decoders do, and give up on floats that lose what the rules need."""

    def keep(text: str) -> float:
        assume(Decimal(text) == Decimal(repr(float(text))))
        return float(text)

    return json.loads(event, parse_float=keep)


@broad
@given(st.lists(PATTERNS | ARRAY_PATTERNS | TEXT_PATTERNS | st.none(), max_size=6), EVENTS | TEXT_EVENTS)
def test_many_patterns_asked_at_once_match_as_each_would_alone(patterns: list[str | None], event: str) -> None:
    compiled = [Pattern.compile(pattern) if pattern is not None else None for pattern in patterns]
    among_bytes, among_decoded = index_patterns(compiled)
    expected = [number for number, pattern in enumerate(patterns) if pattern is None or naive.matches(pattern, event)]
    assert [*among_bytes(event.encode())] == expected
    assert [*among_decoded(decode(event))] == expected


@broad
@given(PATTERNS, EVENTS)
def test_bytes_match_as_the_rules_say_and_an_explanation_agrees(pattern: str, event: str) -> None:
    compiled = Pattern.compile(pattern)
    expected = naive.matches(pattern, event)
    assert compiled.matches(event.encode()) is expected
    explanation = compiled.explain(event.encode())
    assert explanation.matches is expected
    assert len(str(explanation).splitlines()) >= 2


@broad
@given(PATTERNS, EVENTS)
def test_decoded_events_match_as_the_rules_say_and_no_other_fields_matter(pattern: str, event: str) -> None:
    compiled = Pattern.compile(pattern)
    decoded = decode(event)
    expected = naive.matches(pattern, event)
    assert compiled.matches(decoded) is expected
    assert compiled.matches({name: value for name, value in decoded.items() if name in compiled.fields}) is expected


@dense
@given(ARRAY_PATTERNS | ARRAY_OR_PATTERNS, ARRAY_EVENTS)
@example('{"a":{"b":[1],"c":[{"exists":false}]}}', '{"a":[{"b":1},{"c":2}]}')
@example('{"a":{"b":[{"exists":false}],"c":[1]}}', '{"a":[{"c":1},{"b":1}]}')
@example('{"a":{"b":{"c":[1],"d":[2]}}}', '{"a":[{"b":[{"c":1}]},{"b":[{"d":2}]}],"a.b":[{"c":1,"d":2}]}')
def test_arrays_match_as_the_rules_say(pattern: str, event: str) -> None:
    compiled = Pattern.compile(pattern)
    expected = naive.matches(pattern, event)
    assert compiled.matches(event.encode()) is expected
    assert compiled.matches(json.loads(event)) is expected


@broad
@given(PATTERNS, EVENTS)
def test_a_pushed_down_filter_is_never_stricter_than_its_pattern(pattern: str, event: str) -> None:
    assert_never_stricter(pattern, event)


@dense
@given(ARRAY_PATTERNS | ARRAY_OR_PATTERNS, ARRAY_EVENTS)
@example('{"a":{"b":[{"wildcard":"*"}],"c":[{"exists":false}]}}', '{"a":[{"b":"x"},{"c":2}]}')
def test_a_pushed_down_filter_is_never_stricter_where_arrays_and_absence_meet(pattern: str, event: str) -> None:
    assert_never_stricter(pattern, event)


def assert_never_stricter(pattern: str, event: str) -> None:
    compiled = Pattern.compile(pattern)
    pushed = compiled.pushdown()
    if pushed is None:
        return
    wrapped = Pattern.compile(pushed)
    assert wrapped.portable
    assert len(pushed) <= 4096
    accepted = wrapped.matches(f'{{"value":{event}}}'.encode())
    assert accepted or not compiled.matches(event.encode())
    if compiled.portable and "$or" not in pattern and "." not in pattern and '""' not in pattern:
        assert accepted is compiled.matches(event.encode())  # nothing had to be left out


@broad
@given(PATTERNS)
def test_the_source_of_a_pattern_compiles_to_an_equal_pattern(pattern: str) -> None:
    compiled = Pattern.compile(pattern)
    assert Pattern.compile(compiled.source) == compiled
    assert Pattern.compile(compiled.source).source == compiled.source


@broad
@given(st.text(max_size=40) | st.binary(max_size=40))
def test_any_text_is_a_pattern_or_a_clean_error(text: str | bytes) -> None:
    with suppress(PatternError):
        Pattern.compile(text)
