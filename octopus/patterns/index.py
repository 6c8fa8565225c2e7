"""Many patterns over one event: the event is read once, and one field's value says which patterns are worth a look."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from octopus.patterns.pattern import Pattern
from octopus.patterns.peek import build_peek, build_reader

Choice = tuple[int, ...]
"""Positions of the patterns that match, in order."""


def index_patterns(patterns: Sequence[Pattern | None]) -> tuple[Callable[[bytes], Choice], Callable[[object], Choice]]:
    """Compile patterns into one choice.

    Without an index, a record's cost grows with the number of handlers in its group, most of which do not want it.

    Args:
        patterns: None matches everything.

    Returns:
        From an event's bytes, or from a decoded event, to the patterns that match. Both raise the errors of `Pattern.matches`.
    """
    tests = [pattern.matches if pattern is not None else None for pattern in patterns]
    everyone = tuple(range(len(patterns)))
    matching_anything = tuple(number for number in everyone if tests[number] is None)
    name, by_value, others = _most_telling(patterns)
    # Patterns on this field only: where its text does not rule them out, they match.
    settled = {
        number
        for number, pattern in enumerate(patterns)
        if pattern is None or (number not in others and pattern.paths == {name})
    }
    is_settled = {text: settled.issuperset(numbers) for text, numbers in by_value.items()}
    others_are_settled = settled.issuperset(others)

    def among(event: dict[str, Any]) -> Choice:
        value = event.get(name)
        numbers = everyone
        if type(value) is str:  # only a text tells: in a list, say, several values stand for the field
            numbers = by_value.get(value, others)
            if is_settled.get(value, others_are_settled):
                return numbers
        return tuple([number for number in numbers if (test := tests[number]) is None or test(event)])

    paths = frozenset(path for pattern in patterns if pattern is not None for path in pattern.paths)
    exact = any(pattern.compares_numbers for pattern in patterns if pattern is not None)
    decode, read = build_reader(paths, exact=exact)

    def among_bytes(data: bytes) -> Choice:
        try:
            event: dict[str, Any] | None = decode(data)
        except Exception:  # noqa: BLE001 - read again, where it becomes a DecodeError, or turns out to be no object
            event = read(data)
        return matching_anything if event is None else among(event)

    def among_decoded(event: object) -> Choice:
        return among(event) if type(event) is dict else matching_anything

    if not others_are_settled or not all(is_settled.values()):
        return among_bytes, among_decoded

    peek = build_peek(name)

    def among_texts(data: bytes) -> Choice:
        """Look at the one field that decides about all of them."""
        try:
            value = peek(data)._
        except Exception:  # noqa: BLE001 - `among_bytes` raises the right error
            return among_bytes(data)
        return by_value.get(value, others) if type(value) is str else among_bytes(data)

    return among_texts, among_decoded


def _most_telling(patterns: Sequence[Pattern | None]) -> tuple[str, dict[str, Choice], Choice]:
    """Choose the top-level field that most patterns want to be one of certain texts.

    Returns:
        Its name; for each text the patterns that only this text does not rule out; and the patterns that no text rules out.
    """
    wanted = [pattern.texts() if pattern is not None else {} for pattern in patterns]
    popular = Counter(name for texts in wanted for name in texts).most_common(1)
    name = popular[0][0] if popular else ""
    others = tuple(number for number, texts in enumerate(wanted) if name not in texts)
    numbers: dict[str, list[int]] = {}
    for number, texts in enumerate(wanted):
        for text in texts.get(name, ()):
            numbers.setdefault(text, []).append(number)
    return name, {text: tuple(sorted((*some, *others))) for text, some in numbers.items()}, others
