"""Where a pattern is understood: lint by tier, and the part that may be pushed down.

AWS evaluates event patterns in several places, and each understands less than the engine in this package:
the event bus, EventBridge Pipes, and least of all the event source mappings that feed Lambda functions.
A filter on an event source mapping is an optimisation only, since the full pattern is evaluated in process
again; so it may let more through than the pattern, and must never let less through.
"""

import json
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from octopus.patterns import tree
from octopus.patterns.numbers import RawNumber, read_number
from octopus.patterns.parse import is_reserved

#: An event source mapping takes filter patterns of up to this many characters.
MAX_FILTER_LENGTH = 4096


class Tier(IntEnum):
    """The services that understand a matcher; each tier includes the tiers above it in this list."""

    PORTABLE = 0  #: event source mappings, Pipes, the event bus and Octopus
    PIPES = 1  #: Pipes, the event bus and Octopus
    BUS = 2  #: the event bus and Octopus
    ENGINE = 3  #: Octopus, and the engine behind the event bus


_UNDERSTOOD_BY = {
    Tier.PIPES: "EventBridge Pipes and the event bus, not event source mappings",
    Tier.BUS: "the event bus only",
    Tier.ENGINE: "no AWS service by its documentation",
}


@dataclass(frozen=True, slots=True)
class Lint:
    """A remark on one matcher, or on the whole pattern where `path` is empty."""

    path: str
    tier: Tier
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def is_portable(rules: tuple[tree.Rule, ...]) -> bool:
    """Tell whether every place that evaluates event patterns understands these."""
    return all(tier_of(matcher) is Tier.PORTABLE for rule in rules for leaf in rule.values() for matcher in leaf)


def tier_of(matcher: tree.Matcher) -> Tier:
    """Name the tier of a matcher, after the documentation of each service."""
    match matcher:
        case tree.Literal() | tree.Numeric() | tree.Exists() | tree.EqualsIgnoreCase():
            return Tier.PORTABLE
        case tree.Number(text):
            return Tier.ENGINE if isinstance(read_number(text), RawNumber) else Tier.PORTABLE
        case tree.Prefix(ignore_case=folded) | tree.Suffix(ignore_case=folded):
            return Tier.PIPES if folded else Tier.PORTABLE
        case tree.AnythingBut(operator=operator):
            return Tier.BUS if operator else Tier.PORTABLE
        case tree.Cidr():
            return Tier.PIPES
        case tree.Wildcard():
            return Tier.BUS
        case tree.Exactly():
            return Tier.ENGINE


def lint(rules: tuple[tree.Rule, ...]) -> list[Lint]:
    """Remark on matchers that some services do not understand, in the order of the pattern, each once."""
    remarks = {
        (path, matcher): remark
        for rule in rules
        for path, leaf in rule.items()
        for matcher in leaf
        if (remark := _remark(path, matcher)) is not None
    }
    found = list(remarks.values())
    if push_down(rules) is None:
        why = f"some alternative has no portable field, or the filter is over {MAX_FILTER_LENGTH} characters"
        found.append(Lint("", Tier.ENGINE, f"an event source mapping gets no filter and passes every record on: {why}"))
    return found


def _remark(path: str, matcher: tree.Matcher) -> Lint | None:
    tier = tier_of(matcher)
    written = tree.to_json(matcher)
    match matcher:
        case tree.Number(text) if tier is Tier.ENGINE:
            return Lint(path, tier, f"no double represents {text}; it matches only a number spelled just so")
        case tree.Number(text):
            better = tree.to_json(_as_numeric(matcher))
            return Lint(
                path, tier, f"the bare number {text} may not match other spellings of it everywhere; write {better}"
            )
        case tree.Exactly(text):
            return Lint(path, tier, f"{written} is documented for no AWS service; write {json.dumps(text)}")
        case _ if tier is not Tier.PORTABLE:
            return Lint(path, tier, f"{written} is understood by {_UNDERSTOOD_BY[tier]}; there it is left out")
        case _:
            return None


def push_down(rules: tuple[tree.Rule, ...]) -> str | None:
    """Write the largest portable filter that accepts everything the rules accept.

    Returns:
        JSON text of the form `{"value": …}`, or None when nothing is left or it would be too long.
    """
    loosened = _loosen([dict(rule) for rule in rules])
    if not all(loosened):  # an alternative without a condition accepts everything
        return None
    common = _common(loosened)
    fields = [_nest(common)] if common else []
    alternatives = {_nest({path: leaf for path, leaf in rule.items() if path not in common}): None for rule in loosened}
    if "" not in alternatives:
        # One alternative is no alternative; it comes from one rule, so it nests together with the common fields.
        fields = [_nest(loosened[0])] if len(alternatives) == 1 else [*fields, _alternatives(list(alternatives))]
    text = f'{{"value":{{{",".join(fields)}}}}}'
    return text if len(text) <= MAX_FILTER_LENGTH else None


def _alternatives(written: list[str]) -> str:
    return '"$or":[' + ",".join(f"{{{fields}}}" for fields in written) + "]"


def _loosen(rules: list[tree.Rule]) -> list[tree.Rule]:
    """Drop fields that cannot be pushed down, and fields whose rule would become stricter by that."""
    while True:
        common = _common(rules)
        uses = Counter(path for rule in rules for path in rule if path not in common)
        dropped = [
            {
                path
                for path in rule
                if not (_can_push(path, rule) and (path in common or _can_stand_in_or(path, rule, uses)))
            }
            for rule in rules
        ]
        if not any(dropped):
            return rules
        for rule, paths in zip(rules, dropped, strict=True):
            # Absence is judged within the array elements chosen for earlier paths. With one of those gone it
            # would be judged in the whole array and fail: it must go as well.
            unbound = {_first_step(path) for path in paths}
            for path in list(rule):
                if path in paths or (_first_step(path) in unbound and tree.Exists(False) in rule[path]):
                    del rule[path]


def _can_push(path: str, rule: tree.Rule) -> bool:
    if any(tier_of(matcher) is not Tier.PORTABLE for matcher in rule[path]):
        return False
    steps = path.split(".")
    if "$or" in steps:
        return False  # would be read as alternatives
    # With `a` and `a.b` in one rule, a list and an object would need the same name.
    return not any(".".join(steps[:count]) in rule for count in range(1, len(steps)))


def _can_stand_in_or(path: str, rule: tree.Rule, uses: Counter[str]) -> bool:
    if is_reserved(_first_step(path)):
        return False  # would make an ordinary field of the whole $or
    # The engine misses alternatives that share a field when absence is among their conditions.
    return tree.Exists(False) not in rule[path] or all(uses[other] <= 1 for other in rule)


def _common(rules: list[tree.Rule]) -> tree.Rule:
    first, *others = rules
    return {path: leaf for path, leaf in first.items() if all(other.get(path) == leaf for other in others)}


def _first_step(path: str) -> str:
    return path.partition(".")[0]


def _nest(rule: tree.Rule) -> str:
    """Write the fields of a rule as JSON, without the braces around them."""
    grouped: dict[str, tree.Rule | tree.Leaf] = {}
    for path, leaf in rule.items():
        step, dot, rest = path.partition(".")
        if dot:
            inner = grouped.setdefault(step, {})
            assert isinstance(inner, dict)
            inner[rest] = leaf
        else:
            grouped[step] = leaf
    return ",".join(f"{json.dumps(step, ensure_ascii=False)}:{_written(node)}" for step, node in grouped.items())


def _written(node: tree.Rule | tree.Leaf) -> str:
    if isinstance(node, dict):
        return f"{{{_nest(node)}}}"
    return "[" + ",".join(tree.to_json(_as_numeric(matcher)) for matcher in node) + "]"


def _as_numeric(matcher: tree.Matcher) -> tree.Matcher:
    # Services differ on whether the bare number 300 matches 300.0; they agree on numeric.
    return tree.Numeric((("=", matcher),)) if isinstance(matcher, tree.Number) else matcher
