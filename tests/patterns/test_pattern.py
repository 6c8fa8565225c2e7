"""What a compiled pattern offers, and what it refuses."""

import copy
import json
import pickle
import sys
import tracemalloc
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from octopus.errors import DecodeError, PatternError
from octopus.patterns import Pattern, Tier

CREATED = {"event": ["created"], "size": [{"numeric": [">", 1_000_000]}], "path": [{"prefix": "/data/"}]}

REFUSED = {
    "empty pattern": ({}, "", "empty object"),
    "not an object": ("[1]", "", "JSON object of fields"),
    "not JSON": ('{"a": [1]', "", "not JSON"),
    "not UTF-8": (b'{"a": ["\xff"]}', "", "not JSON"),
    "NaN in text": ('{"a": [NaN]}', "", "NaN"),
    "NaN in a mapping": ({"a": [float("nan")]}, "a", "finite"),
    "infinity in a mapping": ({"a": [float("inf")]}, "a", "finite"),
    "half a surrogate pair": ('{"a": ["\\ud800"]}', "", "surrogate"),
    "bare value": ({"a": {"b": "x"}}, "a.b", 'write ["x"]'),
    "empty list": ({"a": []}, "a", "write [null]"),
    "empty object": ({"a": {}}, "a", "empty object"),
    "list in a list": ({"a": [[1]]}, "a", "outer list"),
    "unknown operator": ({"a": [{"prefx": "x"}]}, "a", "'prefx' is not an operator"),
    "two operators": ({"a": [{"prefix": "x", "suffix": "y"}]}, "a", "exactly one operator"),
    "number as prefix": ({"a": [{"prefix": 1}]}, "a", "takes a string"),
    "wrong operator in prefix": ({"a": [{"prefix": {"wildcard": "x"}}]}, "a", "equals-ignore-case"),
    "list of ignored case": ({"a": [{"equals-ignore-case": ["x"]}]}, "a", "takes a string"),
    "exists as text": ({"a": [{"exists": "true"}]}, "a", "true or false"),
    "empty numeric": ({"a": [{"numeric": []}]}, "a", "numeric takes"),
    "unknown comparison": ({"a": [{"numeric": ["!=", 5]}]}, "a", "not \"!=\""),
    "text as bound": ({"a": [{"numeric": ["=", "5"]}]}, "a", 'not "5"'),
    "empty range": ({"a": [{"numeric": [">", 5, "<", 1]}]}, "a", "from 5 to 1 is empty"),
    "upper bound first": ({"a": [{"numeric": ["<", 5, ">", 1]}]}, "a", "lower bound first"),
    "no double": ({"a": [{"numeric": [">", 2**53 + 1]}]}, "a", "no double represents 9007199254740993"),
    "anything but nothing": ({"a": [{"anything-but": []}]}, "a", "at least one"),
    "anything but mixed": ({"a": [{"anything-but": ["x", 1]}]}, "a", "strings only or numbers only"),
    "anything but null": ({"a": [{"anything-but": None}]}, "a", "strings only or numbers only"),
    "anything but an empty prefix": ({"a": [{"anything-but": {"prefix": ""}}]}, "a", "refuses every string"),
    "anything but no prefix": ({"a": [{"anything-but": {"prefix": []}}]}, "a", "empty list"),
    "anything but exists": ({"a": [{"anything-but": {"exists": True}}]}, "a", "anything-but takes one of"),
    "two stars": ({"a": [{"wildcard": "a**b"}]}, "a", "two stars"),
    "bad escape": ({"a": [{"wildcard": "a\\b"}]}, "a", "escapes 'b'"),
    "lone backslash": ({"a": [{"wildcard": "a\\"}]}, "a", "lone backslash"),
    "no mask": ({"a": [{"cidr": "10.0.0.1"}]}, "a", "has no mask"),
    "whole mask": ({"a": [{"cidr": "10.0.0.1/32"}]}, "a", "below 32"),
    "no address": ({"a": [{"cidr": "host/8"}]}, "a", "not an IPv4 or IPv6 address"),
    "inside of an alternative": ({"d": {"$or": [{"a": [1]}, {"b": 2}]}}, "d.$or[1].b", "write [2]"),
    "one alternative": ({"$or": [{"a": [1]}]}, "$or", "two or more objects"),
    "reserved name in an alternative": ({"$or": [{"prefix": [1]}, {"a": [1]}]}, "$or", "named like an operator"),
    "name that is no string": ({1: ["x"]}, "", "field's name"),
    "set": ({"a": [{1, 2}]}, "a", "has no place in a pattern"),
    "deep text": ('{"a":' * 100_000, "", "nests deeper"),
    "deep list": ({"a": ["x", json.loads("[" * 500 + "]" * 500)]}, "", "nests deeper"),
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_pattern_is_refused_with_its_place_and_a_remedy(pattern: Any, path: str, words: str) -> None:
    with pytest.raises(PatternError) as refusal:
        Pattern.compile(pattern)
    assert refusal.value.path == path
    assert words in str(refusal.value)
    assert refusal.value.pattern is pattern


def test_a_mapping_that_contains_itself_is_refused() -> None:
    pattern: dict[str, Any] = {}
    pattern["a"] = pattern
    with pytest.raises(PatternError, match="nests deeper"):
        Pattern.compile(pattern)


def test_alternatives_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    pattern = {f"f{index}": {"$or": [{"a": [1]}, {"b": [1]}]} for index in range(40)}
    tracemalloc.start()
    with pytest.raises(PatternError, match="multiply to more than 1024"):
        Pattern.compile(pattern)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_mapping_and_its_text_make_equal_patterns() -> None:
    assert (
        Pattern.compile(CREATED)
        == Pattern.compile(json.dumps(CREATED))
        == Pattern.compile(json.dumps(CREATED).encode())
    )


def test_a_pattern_can_be_hashed_copied_pickled_and_read_back_from_its_repr() -> None:
    pattern = Pattern.compile(CREATED)
    for other in (pickle.loads(pickle.dumps(pattern)), copy.deepcopy(pattern), eval(repr(pattern))):
        assert other == pattern
        assert len({other, pattern}) == 1
        assert other.matches({"event": "created", "size": 2_000_000, "path": "/data/a"})


def test_a_pattern_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Pattern.compile(CREATED).source = "{}"  # type: ignore[misc]


def test_the_source_keeps_duplicates_order_and_the_spelling_of_numbers() -> None:
    text = '{"b":[3.0e2,12345678901234567890],"a":{"x":["é"]},"b":[1]}'
    assert Pattern.compile(f" {text} ").source == text


NOT_OBJECTS = [b"[1]", b"1", b'"x"', b"null", b" [ ] ", [1], 1, "x", None, True, 1.5]


@pytest.mark.parametrize("value", NOT_OBJECTS, ids=repr)
def test_what_is_no_object_does_not_match(value: object) -> None:
    pattern = Pattern.compile({"a": [{"exists": False}]})
    assert not pattern.matches(value)
    assert "not a JSON object" in str(pattern.explain(value))


BROKEN = {
    "empty": b"",
    "truncated": b'{"a": ',
    "trailing": b'{"a": 1} x',
    "broken elsewhere": b'{"a": 1, "z": truu}',
    "broken array": b"[1",
    "NaN": b'{"a": NaN}',
    "infinity elsewhere": b'{"z": -Infinity}',
    "invalid UTF-8": b'{"a": "\xff"}',
    "byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep elsewhere": b'{"z": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("method", ["matches", "explain"])
def test_bytes_that_are_not_json_are_an_error_and_not_a_mismatch(data: bytes, method: str) -> None:
    with pytest.raises(DecodeError):
        getattr(Pattern.compile({"a": [1]}), method)(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_json_text(kind: Any) -> None:
    assert Pattern.compile({"a": [1]}).matches(kind(b'{"a": 1}'))


def test_integers_of_any_length_are_read() -> None:
    digits = "9" * 5000
    assert Pattern.compile(f'{{"a": [{digits}]}}').matches(f'{{"a": {digits}}}'.encode())
    assert Pattern.compile({"a": {"b": [{"exists": False}]}}).matches(f'{{"a": {digits}}}'.encode())
    assert not Pattern.compile({"a": [{"numeric": [">", 0]}]}).matches({"a": 10**5000})


def test_a_value_that_no_decoder_returns_is_an_error() -> None:
    with pytest.raises(TypeError, match="not a decoded JSON value"):
        Pattern.compile({"a": [1]}).matches({"a": object()})


def test_deep_decoded_events_need_no_recursion() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    assert Pattern.compile({"a": ["x"]}).matches({"a": value})
    assert Pattern.compile({"a": ["x"], "a.b": [{"exists": False}]}).matches({"a": value})


FIELDS = {
    "top level": ({"a": [1], "b": [1]}, {"a", "b"}),
    "nested": ({"a": {"b": {"c": [1]}}}, {"a", "a.b", "a.b.c"}),
    "dotted": ({"a.b": [1]}, {"a", "a.b"}),
    "alternatives": ({"$or": [{"a": [1]}, {"b": [1]}]}, {"a", "b"}),
    "$or as a field": ({"$or": {"a": [1]}}, {"$or", "$or.a"}),
}


@pytest.mark.parametrize(("pattern", "fields"), FIELDS.values(), ids=FIELDS)
def test_the_fields_of_a_pattern_are_all_names_that_may_lead_to_its_paths(pattern: Any, fields: set[str]) -> None:
    assert Pattern.compile(pattern).fields == fields


# --- events made to be slow


LONG = 20_000
SLOW = {
    "elements that never meet": (
        {"a": {"b": [1], "c": [2]}},
        {"a": [{"b": 1, "c": 3} if index % 2 else {"b": 0, "c": 2} for index in range(LONG)]},
    ),
    "independent arrays": (
        {"a": {"x": [1]}, "b": {"x": [1]}, "c": {"x": [1]}, "d": ["no"]},
        {"a": [{"x": 1}] * LONG, "b": [{"x": 1}] * LONG, "c": [{"x": 1}] * LONG, "d": "yes"},
    ),
    "wildcard": ({"a": [{"wildcard": "*a*b*a*b*a*b*c"}]}, {"a": "ab" * LONG}),
    "ignored case": ({"a": [{"suffix": {"equals-ignore-case": "éßé"}}]}, {"a": "éSSÉ" * LONG + "x"}),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("pattern", "event"), SLOW.values(), ids=SLOW)
def test_a_long_event_costs_its_length(pattern: Any, event: Any) -> None:
    assert not Pattern.compile(pattern).matches(event)


@pytest.mark.timeout(20)
def test_an_event_whose_dotted_and_nested_arrays_multiply_is_an_error() -> None:
    event: dict[str, Any] = {"a": [{"b": {"c": 1, "d": 2}}] * 2000, "a.b": [{"c": 1, "d": 2}] * 2000}
    assert not Pattern.compile({"a": {"b": {"c": [1], "d": [2], "e": [3]}}}).matches(event), (
        "nothing at e: no need to try"
    )
    event["a"] = [*event["a"], {"b": {"e": 3}}]
    with pytest.raises(DecodeError, match="spell it one way"):
        Pattern.compile({"a": {"b": {"c": [1], "d": [2], "e": [3]}}}).matches(event)


def steps(pattern: Any, event: Any) -> int:
    """Count the lines of Python that a match takes."""
    count = 0

    def trace(frame: Any, what: str, argument: Any) -> Any:
        nonlocal count
        count += what == "line"
        return trace

    compiled = Pattern.compile(pattern)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        compiled.matches(event)
    finally:
        sys.settrace(before)
    return count


OBJECTS = {
    "one nested field": {"items": {"a": [-1]}},
    "two levels": {"items": {"b": {"c": [-1]}}},
    "two fields, of which one decides": {"items": {"a": [{"exists": True}], "b": {"c": [-1]}}},
    "either of two": {"$or": [{"items": {"a": [-1]}}, {"items": {"b": {"c": [-1]}}}]},
    "two fields that never agree": {"items": {"a": [1], "b": {"c": [2]}}},
}


@pytest.mark.parametrize("pattern", OBJECTS.values(), ids=OBJECTS)
def test_a_filter_takes_a_few_steps_for_each_object_of_an_event(pattern: Any) -> None:
    some, twice = ({"items": [{"a": number, "b": {"c": number}} for number in range(count)]} for count in (500, 1000))
    assert steps(pattern, twice) <= 2.2 * steps(pattern, some)
    assert steps(pattern, twice) < 1000 * 40


# --- lint and push-down


TIERS = {
    "bare number": ('{"a": [300]}', Tier.PORTABLE, '{"numeric":["=",300]}'),
    "no double": ('{"a": [12345678901234567890]}', Tier.ENGINE, "spelled just so"),
    "prefix ignoring case": ('{"a": [{"prefix": {"equals-ignore-case": "x"}}]}', Tier.PIPES, "Pipes"),
    "cidr": ('{"a": [{"cidr": "10.0.0.0/8"}]}', Tier.PIPES, "Pipes"),
    "wildcard": ('{"a": [{"wildcard": "x*"}]}', Tier.BUS, "event bus only"),
    "anything but prefix": ('{"a": [{"anything-but": {"prefix": "x"}}]}', Tier.BUS, "event bus only"),
    "exactly": ('{"a": [{"exactly": "x"}]}', Tier.ENGINE, 'write "x"'),
}


@pytest.mark.parametrize(("pattern", "tier", "words"), TIERS.values(), ids=TIERS)
def test_lint_says_who_understands_a_matcher(pattern: str, tier: Tier, words: str) -> None:
    compiled = Pattern.compile(pattern)
    remark = compiled.lint()[0]
    assert (remark.path, remark.tier) == ("a", tier)
    assert words in str(remark)
    assert compiled.portable is (tier is Tier.PORTABLE)


def test_a_portable_pattern_without_bare_numbers_has_no_lint() -> None:
    pattern = Pattern.compile(CREATED)
    assert pattern.portable
    assert pattern.lint() == []


PUSHED = {
    "all of it": (CREATED, CREATED),
    "numbers become numeric": ({"a": [300, "x"]}, {"a": [{"numeric": ["=", 300]}, "x"]}),
    "a field with a matcher that is not portable goes": ({"a": ["x", {"wildcard": "*"}], "b": ["y"]}, {"b": ["y"]}),
    "dotted names nest": ({"a.b": ["x"], "a": {"c": ["y"]}}, {"a": {"b": ["x"], "c": ["y"]}}),
    "common fields stay outside of $or": (
        {"a": ["x"], "$or": [{"b": ["y"]}, {"c": ["z"]}]},
        {"a": ["x"], "$or": [{"b": ["y"]}, {"c": ["z"]}]},
    ),
    "an alternative without a portable field ends $or": (
        {"a": ["x"], "$or": [{"b": ["y"]}, {"c": [{"wildcard": "*"}]}]},
        {"a": ["x"]},
    ),
    "an overridden field is not tightened": ({"a": ["x"], "$or": [{"a": [{"wildcard": "*"}]}, {"b": ["y"]}]}, None),
    "absence goes with the field it was bound to": (
        {"a": {"b": [{"wildcard": "*"}], "c": [{"exists": False}]}, "d": ["x"]},
        {"d": ["x"]},
    ),
    "a field and its inside keep the field": ({"a": ["x"], "a.b": ["y"]}, {"a": ["x"]}),
    "nothing portable": ({"a": [{"wildcard": "*"}]}, None),
    "too long": ({"a": ["x" * 4096]}, None),
}


@pytest.mark.parametrize(("pattern", "pushed"), PUSHED.values(), ids=PUSHED)
def test_the_largest_portable_part_is_pushed_down(pattern: Any, pushed: Any) -> None:
    text = Pattern.compile(pattern).pushdown()
    assert (text and json.loads(text)) == (pushed and {"value": pushed})


def test_lint_says_when_nothing_can_be_pushed_down() -> None:
    assert "no filter" in str(Pattern.compile({"a": [{"wildcard": "*"}]}).lint()[-1])


# --- explanations


def test_an_explanation_names_the_matcher_that_accepted_and_the_reason_of_a_refusal() -> None:
    explanation = Pattern.compile(CREATED).explain(b'{"event": "created", "size": 5, "path": ["/a", "/b", "/c", "/d"]}')
    assert not explanation.matches
    assert explanation.lines == (
        'event: "created" accepted by "created"',
        'path: "/a", "/b", "/c" and 1 more refused, wanted {"prefix":"/data/"}',
        'size: 5 refused, wanted {"numeric":[">",1000000]}',
    )


def test_an_explanation_goes_through_the_alternatives() -> None:
    explanation = Pattern.compile({"$or": [{"a": [1]}, {"b": [{"exists": False}]}]}).explain({"a": 2})
    assert str(explanation) == (
        "match\n"
        "  alternative 1 of 2: no match\n"
        "    a: 2 refused, wanted 1\n"
        "  alternative 2 of 2: match\n"
        '    b: absent, accepted by {"exists":false}'
    )


def test_an_explanation_tells_that_values_come_from_different_elements() -> None:
    pattern = Pattern.compile({"a": {"b": [1], "c": [2]}})
    assert "no one element" in str(pattern.explain({"a": [{"b": 1}, {"c": 2}]}))


def test_an_explanation_tells_that_absence_holds_in_the_chosen_element() -> None:
    pattern = Pattern.compile({"a": {"b": [1], "c": [{"exists": False}]}})
    assert "absent in the element" in str(pattern.explain({"a": [{"b": 1}, {"c": 2}]}))


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def test_enumerations_count_as_their_values() -> None:
    pattern = Pattern.compile({"colour": ["red"], "level": [{"numeric": [">", 2]}]})
    assert pattern.matches({"colour": Colour.RED, "level": [Level.HIGH]})
