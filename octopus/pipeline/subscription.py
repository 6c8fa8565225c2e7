"""What a group reads: names, or one pattern of all of them."""

import re
from collections.abc import Sequence

from octopus.routing import DEAD_LETTER_SUFFIX, RETRY_SUFFIX, Route, inlined


def subscription(routes: Sequence[Route]) -> tuple[str, ...] | re.Pattern[str]:
    """Return what a consumer of these routes subscribes to.

    A regular expression never takes in dead-letter and retry topics by accident: it must spell `dead-letter` or `retry`
    itself.
    """
    names = [topic for route in routes if isinstance(route.topics, tuple) for topic in route.topics]
    patterns = [route.topics for route in routes if isinstance(route.topics, re.Pattern)]
    if not patterns:
        return tuple(dict.fromkeys(names))
    choices = [re.escape(name) for name in names]
    for pattern in patterns:
        # One that is about dead letters still leaves alone those that come of dead letters, which would never end.
        left_alone = [DEAD_LETTER_SUFFIX * 2 if "dead-letter" in pattern.pattern else DEAD_LETTER_SUFFIX]
        if "retry" not in pattern.pattern:
            left_alone.append(RETRY_SUFFIX)
        choices.append(rf"(?!.*(?:{'|'.join(map(re.escape, left_alone))})\Z){inlined(pattern)}")
    return re.compile(rf"(?:{'|'.join(choices)})\Z")
