"""Why an event matches or does not, in lines a person can read."""

import json
from dataclasses import dataclass

from octopus.patterns.accept import build_table
from octopus.patterns.arrays import Found, Requirement, accepts, satisfies
from octopus.patterns.numbers import RawNumber
from octopus.patterns.tree import Exists, Leaf, Rule, to_json

#: Of a long array only so many values are shown, each cut at so many characters.
_MOST_VALUES = 3
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on one event, and for each path of the pattern the reason; `str()` gives it as text.

    Attributes:
        matches: As `Pattern.matches`.
        lines: One per path, headed by one per alternative where `$or` gives several.
    """

    matches: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(("match" if self.matches else "no match", *(f"  {line}" for line in self.lines)))


def explain(rules: tuple[Rule, ...], requirements: list[tuple[Requirement, ...]], found: Found) -> Explanation:
    """Explain the decision of `arrays.satisfies` about the values found in an event."""
    lines: list[str] = []
    verdicts = []
    for index, (rule, wanted) in enumerate(zip(rules, requirements, strict=True), 1):
        verdict = satisfies(wanted, found)
        verdicts.append(verdict)
        indent = ""
        if len(rules) > 1:
            lines.append(f"alternative {index} of {len(rules)}: {'match' if verdict else 'no match'}")
            indent = "  "
        reasons = [_reason(requirement, rule[requirement.path], found, verdict) for requirement in wanted]
        lines += [f"{indent}{reason}" for _, reason in reasons]
        if not verdict and all(accepted for accepted, _ in reasons):
            lines.append(f"{indent}but no one element of an array satisfies them all")
    return Explanation(any(verdicts), tuple(lines))


def _reason(requirement: Requirement, leaf: Leaf, found: Found, verdict: bool) -> tuple[bool, str]:
    """Tell whether the path may be satisfied by itself, and why."""
    path = requirement.path
    wanted = " or ".join(to_json(matcher) for matcher in leaf)
    absence = f"accepted by {to_json(Exists(False))}"
    values = found.get(path, [])
    if not values:
        return requirement.absent, f"{path}: absent, {absence if requirement.absent else f'wanted {wanted}'}"
    for value, _ in values:
        if accepts(requirement.table, value):
            by = next(to_json(matcher) for matcher in leaf if accepts(build_table((matcher,)), value))
            return True, f"{path}: {_shown(value)} accepted by {by}"
    if requirement.absent and verdict:
        return True, f"{path}: absent in the element of the array that satisfies the rest, {absence}"
    shown = ", ".join(_shown(value) for value, _ in values[:_MOST_VALUES])
    more = f" and {len(values) - _MOST_VALUES} more" if len(values) > _MOST_VALUES else ""
    in_array = any(chain for _, chain in values)
    return requirement.absent and in_array, f"{path}: {shown}{more} refused, wanted {wanted}"


def _shown(value: object) -> str:
    text = value.text if isinstance(value, RawNumber) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
