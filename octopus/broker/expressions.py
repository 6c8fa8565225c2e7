"""Regular expressions of clients, in time that grows with the text and not with its square or worse.

Python's `re` backtracks, so an expression of twenty characters could stop the broker. Here all ways through the expression are
followed at once (K. Thompson, "Regular expression search algorithm", CACM 11, 1968), as in RE2, which Kafka uses. Of RE2's
syntax, flags, `\\b`, `\\p`, `\\Q` and `[[:class:]]` are refused, and programs of more than a thousand steps.
"""

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

LARGEST_REPEAT = 1000
LARGEST_PATTERN = LARGEST_PROGRAM = 1024
_DEEPEST = 100
_REMEMBERED = 4096

_CLASSES = frozenset("dDsSwW")
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REPEATS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_COUNTED = re.compile(r"\{(\d{1,4})(?:(,)(\d{0,4}))?\}")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_][A-Za-z0-9_]*>|(?!\?))")

_Test: TypeAlias = Callable[[str], object]


@dataclass(frozen=True)
class _Step:
    """A step of the program: a character that passes `test`, one end of the text, or other steps."""

    test: _Test | None = None
    at: str = ""
    ways: tuple[int, ...] = ()


class Expression:
    """A regular expression that whole texts match or do not.

    Args:
        pattern: In RE2's syntax.

    Raises:
        ValueError: It is none.
    """

    def __init__(self, pattern: str) -> None:
        self._steps = _Parser(pattern).program()
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Say whether all of `text` matches."""
        here = self._reached([0], is_start=True, is_end=not text)
        for number, char in enumerate(text, 1):
            if number == len(text):  # the end is seen by none but the last step
                here = self._after(here, char, is_end=True)
                break
            following = self._known.get((here, char))
            if following is None:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                following = self._known[here, char] = self._after(here, char, is_end=False)
            here = following
            if not here:
                return False
        return len(self._steps) in here

    def _after(self, here: frozenset[int], char: str, *, is_end: bool) -> frozenset[int]:
        passed = (
            each + 1 for each in here if each < len(self._steps) and (test := self._steps[each].test) and test(char)
        )
        return self._reached(passed, is_start=False, is_end=is_end)

    def _reached(self, begin: "Iterator[int] | list[int]", *, is_start: bool, is_end: bool) -> frozenset[int]:
        """Follow the steps that take no character."""
        left, seen = list(begin), set[int]()
        while left:
            number = left.pop()
            if number in seen:
                continue
            seen.add(number)
            if number == len(self._steps):
                continue
            step = self._steps[number]
            left += step.ways
            if (step.at == "start" and is_start) or (step.at == "end" and is_end):
                left.append(number + 1)
        return frozenset(seen)


class _Parser:
    """Reads a pattern into steps whose `ways` are relative until the program is whole."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._place = 0

    def program(self) -> list[_Step]:
        if len(self._pattern) > LARGEST_PATTERN:
            raise self._refusal("too long")
        steps = self._either(0)
        if self._place < len(self._pattern):
            raise self._refusal("a parenthesis that closes nothing")
        return [
            _Step(each.test, each.at, tuple(number + way for way in each.ways)) for number, each in enumerate(steps)
        ]

    def _either(self, depth: int) -> list[_Step]:
        if depth > _DEEPEST:
            raise self._refusal("too many parentheses")
        steps = self._sequence(depth)
        while self._took("|"):
            other = self._sequence(depth)
            steps = [_Step(ways=(1, len(steps) + 2)), *steps, _Step(ways=(len(other) + 1,)), *other]
        return self._checked(steps)

    def _sequence(self, depth: int) -> list[_Step]:
        steps: list[_Step] = []
        while self._next() not in {"", "|", ")"}:
            steps += self._repeated(self._atom(depth))
            self._checked(steps)
        return steps

    def _repeated(self, steps: list[_Step]) -> list[_Step]:
        counts = self._counts()
        if counts is None:
            return steps
        self._took("?")  # whether it takes few or many makes no difference to a whole match
        if self._counts() is not None:
            raise self._refusal("a repetition of a repetition")
        least, most = counts
        if len(steps) * max(least, most or 0) > LARGEST_PROGRAM:
            raise self._refusal("too much to repeat")
        size = len(steps)
        if most is None:
            again = [_Step(ways=(1, size + 2)), *steps, _Step(ways=(-size - 1,))]
            return steps * least + again
        return steps * least + [_Step(ways=(1, size + 1)), *steps] * (most - least)

    def _counts(self) -> tuple[int, int | None] | None:
        char = self._next()
        if char in _REPEATS:
            self._place += 1
            return _REPEATS[char]
        counted = _COUNTED.match(self._pattern, self._place)
        if counted is None:
            return None
        self._place = counted.end()
        least = int(counted[1])
        most = least if counted[2] is None else int(counted[3]) if counted[3] else None
        if max(least, most or 0) > LARGEST_REPEAT or (most is not None and most < least):
            raise self._refusal("a repetition that cannot be")
        return least, most

    def _atom(self, depth: int) -> list[_Step]:
        char = self._next()
        if char == "(":
            return self._group(depth)
        if char == "[":
            return [_Step(self._class())]
        if char in _REPEATS or _COUNTED.match(self._pattern, self._place):
            raise self._refusal("a repetition of nothing")
        self._place += 1
        match char:
            case "\\":
                return [self._escape()]
            case ".":
                return [_Step(lambda each: each != "\n")]
            case "^":
                return [_Step(at="start")]
            case "$":
                return [_Step(at="end")]
        return [_Step(char.__eq__)]

    def _group(self, depth: int) -> list[_Step]:
        opening = _GROUP.match(self._pattern, self._place)
        if opening is None:
            raise self._refusal("flags, or a group of another kind")
        self._place = opening.end()
        steps = self._either(depth + 1)
        if not self._took(")"):
            raise self._refusal("a parenthesis that is not closed")
        return steps

    def _class(self) -> _Test:
        self._place += 1
        start = "[^" if self._took("^") else "["
        members = ""
        while not members or self._next() != "]":
            if self._pattern.startswith("[:", self._place):
                raise self._refusal("a named class")
            least = self._member()
            if len(least) == 1 and self._next() == "-" and self._pattern[self._place + 1 : self._place + 2] != "]":
                self._place += 1
                most = self._member()
                if len(most) > 1 or most < least:
                    raise self._refusal("a range that cannot be")
                members += f"{re.escape(least)}-{re.escape(most)}"
            else:
                members += least if len(least) > 1 else re.escape(least)
        self._place += 1
        return re.compile(f"{start}{members}]", re.ASCII).fullmatch  # of one character: there is nothing to go back to

    def _member(self) -> str:
        """Return a character, or the escape of several."""
        char = self._taken()
        return self._escaped() if char == "\\" else char

    def _escape(self) -> _Step:
        if self._next() in {"A", "z"}:
            return _Step(at="start" if self._taken() == "A" else "end")
        char = self._escaped()
        return _Step(re.compile(char, re.ASCII).fullmatch if len(char) > 1 else char.__eq__)

    def _escaped(self) -> str:
        char = self._taken()
        if char in _CLASSES:
            return "\\" + char
        if char in string.ascii_letters + string.digits and char not in _CONTROL:
            raise self._refusal("an escape that is none")
        return _CONTROL.get(char, char)

    def _took(self, char: str) -> bool:
        is_next = self._next() == char
        self._place += is_next
        return is_next

    def _taken(self) -> str:
        char = self._next()
        if not char:
            raise self._refusal("no end")
        self._place += 1
        return char

    def _next(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _checked(self, steps: list[_Step]) -> list[_Step]:
        if len(steps) > LARGEST_PROGRAM:
            raise self._refusal("too long")
        return steps

    def _refusal(self, what: str) -> ValueError:
        return ValueError(
            f"{self._pattern[:60]!r} is no regular expression here: {what}, at character {self._place + 1}."
        )
