"""Places to which nothing may go for a moment, because something before it has failed and may be sent again."""

import asyncio
from collections.abc import Iterable

from octopus import invariants
from octopus.transports.queueing import Call

Place = tuple[str, int | None]
"""A topic and one of its partitions, or None for all of them."""


@invariants.hold_after("close", "note_finished", "_reopen")
class Closed:
    """Lets what is behind a failure fail with it, until those who queued it have had word of the first.

    Who sends what has failed again, in order, and nothing newer before that, is overtaken by nothing.

    Invariants, between any two steps:

    - A place is closed from a failure until every call is finished that was not at that moment, and its callbacks have run. Where
      all are finished, it stays open.
    - Calls that come meanwhile fail there, and do not keep it closed: it opens again however many there are.
    """

    def __init__(self) -> None:
        self._errors: dict[Place, Exception] = {}
        self._open: dict[Place, set[Call]] = {}

    def __bool__(self) -> bool:
        return bool(self._errors)

    def close(self, place: Place, error: Exception, unfinished: Iterable[Call]) -> None:
        """Note a failure; `unfinished` are all calls that are."""
        behind = {call for call in unfinished if place[0] in call.topics()}
        if behind and self.error_of(place) is None:  # else no call is left to open it again
            self._errors[place] = error
            self._open[place] = behind

    def error_of(self, place: Place) -> Exception | None:
        """Return why nothing may go there; None when it may."""
        return self._errors.get((place[0], None)) or self._errors.get(place)

    def note_finished(self, call: Call) -> None:
        """Note that a call is finished."""
        for place, unfinished in self._open.items():
            if call in unfinished:
                unfinished.discard(call)
                if not unfinished:  # callbacks of the last one's future are scheduled already, and run before this
                    asyncio.get_running_loop().call_soon(self._reopen, place)

    def _reopen(self, place: Place) -> None:
        del self._errors[place], self._open[place]

    def check(self) -> None:
        """Assert that what is closed can be opened again: by calls that are not finished, or in the next turn of the loop."""
        assert self._errors.keys() == self._open.keys()
        assert all(place[0] in call.topics() for place, calls in self._open.items() for call in calls)
