"""Stop signals that come before anything listens: nothing has begun, so the process ends. Imports nothing that takes time."""

import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any


class EarlyStop:
    """Ends the process at a signal, with an exit code and without a word, until somebody else listens to that signal.

    At once, as a signal does that nobody listens to: an exception in the midst of an import may be taken for that of the import,
    or get lost.

    Args:
        codes: The exit code of each signal.
    """

    def __init__(self, codes: Mapping[signal.Signals, int]) -> None:
        self._codes = codes
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Begin."""
        self._before = {number: signal.signal(number, self) for number in self._codes}

    def call_off(self) -> None:
        """Let signals mean what they meant before."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        os._exit(self._codes[signal.Signals(number)])

    def before(self, number: int) -> Any:
        """Return what a signal meant before."""
        return self._before[number]


def replace_handler(number: signal.Signals, handler: Any) -> Any:
    """Listen to a signal from now on; return what it meant before, where `EarlyStop` is nobody."""
    before = signal.signal(number, handler)
    return before.before(number) if isinstance(before, EarlyStop) else before
