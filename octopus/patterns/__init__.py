"""Event patterns: the JSON language of Amazon EventBridge for choosing events, evaluated in process.

    pattern = Pattern.compile({"event": ["created"], "size": [{"numeric": [">", 1_000_000]}]})
    pattern.matches(b'{"event": "created", "size": 2000000}')  # True

A pattern is read (`parse`) into rules of matchers (`tree`), compiled into a predicate (`rule`, `accept`, and
`arrays` for events that have them), and can tell the part that other services understand (`portable`) and
why an event matches (`explain`). Many patterns over the same events are evaluated at once (`index`).
"""

from octopus.patterns.explain import Explanation
from octopus.patterns.index import index_patterns
from octopus.patterns.pattern import Pattern
from octopus.patterns.portable import Lint, Tier

__all__ = ["Explanation", "Lint", "Pattern", "Tier", "index_patterns"]
