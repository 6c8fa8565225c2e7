"""The pattern itself: compiled once per handler, asked once per record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from octopus.errors import PatternError
from octopus.patterns.addresses import read_address
from octopus.patterns.arrays import Requirement, flatten, prefixes
from octopus.patterns.explain import Explanation, explain
from octopus.patterns.parse import expand, read, write
from octopus.patterns.peek import Reader, build_peek, build_reader, build_test
from octopus.patterns.portable import Lint, is_portable, lint, push_down
from octopus.patterns.rule import Predicate, build_predicate, requirements_of
from octopus.patterns.tree import AnythingBut, Exactly, Literal, Matcher, Number, Numeric, Rule

OneText = tuple[Callable[[bytes], Any] | None, frozenset[str]]


@dataclass(frozen=True, slots=True, repr=False)
class Pattern:
    """An event pattern, checked and compiled.

    Two patterns are equal when their `source` is. A pattern pickles as its source.

    Attributes:
        source: The pattern as compact JSON, with names, their order and numbers as they were written.
        fields: The top-level names the pattern looks at, dotted ones included. An object with only these
            fields matches exactly when the whole event does, so a reader need decode no others.
        matches_bytes: `matches` for JSON text in bytes, as one closure, for hot paths.
        one_text: Also for hot paths, where the pattern only asks that one top-level field is one of some texts, the commonest
            case: a reader of that field (`build_peek`), and the texts. Any other value is for `matches_bytes`.
    """

    source: str
    fields: frozenset[str] = field(compare=False)
    _rules: tuple[Rule, ...] = field(compare=False)
    _requirements: list[tuple[Requirement, ...]] = field(compare=False)
    _predicate: Predicate = field(compare=False)
    _reader: Reader = field(compare=False)
    matches_bytes: Callable[[bytes], bool] = field(compare=False)
    one_text: OneText = field(compare=False)

    @classmethod
    def compile(cls, pattern: Mapping[str, object] | str | bytes) -> Self:
        """Check a pattern and compile it.

        Args:
            pattern: JSON text, or a mapping of Python values. Text keeps duplicate names and the
                spelling of numbers that no double represents.

        Raises:
            PatternError: It is not a pattern; the message names the correct form.
        """
        try:
            root = read(pattern)
            rules = expand(root)
            source = write(root)
        except PatternError as error:
            error.pattern = pattern
            raise
        requirements = requirements_of(rules)
        # `a.b` may be one name or two, so every dotted prefix of a path may stand on an event's first level.
        fields = frozenset(prefix for rule in rules for path in rule for prefix in prefixes(path))
        predicate = build_predicate(requirements, fields)
        reader = build_reader(_paths(rules), exact=any(map(_compares_numbers, rules)))
        test = build_test(reader, predicate)
        one_text: OneText = None, frozenset()
        match [*_texts(rules).items()]:
            case [(name, texts)] if all(len(rule) == 1 for rule in rules):
                one_text = build_peek(name), texts
        return cls(source, fields, tuple(rules), requirements, predicate, reader, test, one_text)

    def matches(self, value: object) -> bool:
        """Tell whether an event matches.

        Args:
            value: The event as JSON text in bytes, or as decoded by a JSON decoder. Of the decoded, only a
                float differs: a number such as 0.10000000000000000001 or 9007199254740993.0, which
                no double represents, has lost the text by which bytes are ruled. Of duplicate
                names in an event the last wins, as in every decoder.

        Returns:
            False for anything that is not a JSON object, too.

        Raises:
            DecodeError: Bytes are not JSON, or nest too deeply. (Of fields the pattern does not look at, only
                the structure is checked.)
            TypeError: The value at a field of the pattern is not of a type that JSON decoders return.
        """
        if type(value) is bytes:
            return self.matches_bytes(value)
        if type(value) is dict:
            return self._predicate(value)
        event = self._read(value)
        return event is not None and self._predicate(event)

    def explain(self, value: object) -> Explanation:
        """Say for each path which matcher accepted its value, or why none did.

        Raises:
            DecodeError: As for `matches`.
        """
        event = self._read(value)
        if event is None:
            return Explanation(False, ("the event is not a JSON object",))
        return explain(self._rules, self._requirements, flatten(event, self.fields))

    @property
    def portable(self) -> bool:
        """Whether every AWS service that evaluates event patterns understands all of this one."""
        return is_portable(self._rules)

    def lint(self) -> list[Lint]:
        """Remark on matchers that some services do not understand, and on their replacements."""
        return lint(self._rules)

    def pushdown(self) -> str | None:
        """Write the largest filter for a Kafka event source mapping that lets through all that matches.

        Returns:
            JSON text `{"value": …}` of at most 4,096 characters; None when no such filter narrows anything.
        """
        return push_down(self._rules)

    @property
    def paths(self) -> frozenset[str]:
        """The dotted paths that the pattern looks at."""
        return _paths(self._rules)

    @property
    def compares_numbers(self) -> bool:
        """Whether numbers must keep their text to be compared."""
        return any(map(_compares_numbers, self._rules))

    def texts(self) -> dict[str, frozenset[str]]:
        """Return the top-level fields that must be one of certain texts, if they are text at all, with those texts."""
        return _texts(self._rules)

    def __repr__(self) -> str:
        return f"Pattern.compile({self.source!r})"

    def __reduce__(self) -> tuple[Callable[[str], Self], tuple[str]]:
        return type(self).compile, (self.source,)

    def _read(self, value: object) -> dict[str, Any] | None:
        """Read the event's fields that matter; None if it is not an object."""
        if isinstance(value, bytes | bytearray | memoryview):
            return self._reader.read(value)
        return dict(value) if isinstance(value, Mapping) else None


def _paths(rules: Iterable[Rule]) -> frozenset[str]:
    return frozenset(path for rule in rules for path in rule)


def _texts(rules: Iterable[Rule]) -> dict[str, frozenset[str]]:
    wanted = [{path: frozenset(map(_text, leaf)) for path, leaf in rule.items() if "." not in path} for rule in rules]
    return {
        path: frozenset[str]().union(*(texts[path] for texts in wanted))  # type: ignore[arg-type]
        for path in frozenset.intersection(*(frozenset(texts) for texts in wanted))
        if not any(None in texts[path] for texts in wanted)
    }


def _text(matcher: Matcher) -> str | None:
    """Return the only text that a matcher accepts, or None. An address has several spellings."""
    match matcher:
        case Literal(str() as text) | Exactly(text) if read_address(text) is None:
            return text
        case _:
            return None


def _compares_numbers(rule: Rule) -> bool:
    return any(
        isinstance(matcher, Number | Numeric)
        or (isinstance(matcher, AnythingBut) and isinstance(matcher.values[0], Number))
        for leaf in rule.values()
        for matcher in leaf
    )
