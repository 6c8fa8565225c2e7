"""Stop signals before the process has handlers for them: no work has begun, so it ends. Imports nothing that takes time."""

import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any


class EarlyStop:
    """Ends the process at a signal, with an exit code and without a message, until another handler takes the signal over.

    It does so at once, as the kernel does without a handler: an exception in the midst of an import may be taken for one of
    the import, or get lost.

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
        """Restore the handlers of before."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        os._exit(self._codes[signal.Signals(number)])

    def before(self, number: int) -> Any:
        """Return a signal's handler of before."""
        return self._before[number]


def replace_handler(number: signal.Signals, handler: Any) -> Any:
    """Set the handler of a signal; return the one before, and in place of an `EarlyStop` the one before that."""
    before = signal.signal(number, handler)
    return before.before(number) if isinstance(before, EarlyStop) else before
