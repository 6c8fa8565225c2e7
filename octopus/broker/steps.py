"""Long changes a step at a time, so that other requests do not wait for them.

A change is a generator. It yields work for the disk, which touches nothing but files and so may be done in another thread,
and `None` where others may have their turn. Its steps in between are atomic: each sees the result of its own work, and no
half of another change.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

from octopus.broker.codes import BrokerError, Code

T = TypeVar("T")
Work: TypeAlias = Callable[[], object]
Steps: TypeAlias = Generator[Work | None, None, T]


def at_once(steps: Steps[T]) -> T:
    """Make a change here and now, waiting for the disk; for use without an event loop.

    Raises:
        BrokerError: The error of the change.
    """
    failure: OSError | None = None
    while True:
        try:
            work = _next(steps, failure)
        except StopIteration as end:
            result: T = end.value
            return result
        failure = None if work is None else _done(work)


class Turns:
    """Changes that share an event loop: their work is done in a thread, one after the other, and they take turns."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()  # fair: the longest waiting task is next
        self._is_over = False

    async def make(self, steps: Steps[T]) -> T:
        """Make a change.

        Raises:
            BrokerError: The error of the change; 56 the broker stops, and the next start undoes an unfinished change.
        """
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        while True:
            async with self._lock:
                if self._is_over:
                    steps.close()
                    raise BrokerError(Code.KAFKA_STORAGE_ERROR, "The broker stops.")
                while True:
                    try:
                        work = _next(steps, failure)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                    failure = None
                    if work is None:
                        break
                    failure = await loop.run_in_executor(None, _done, work)
            await asyncio.sleep(0)  # a lock that no task waits for is taken again at once

    async def end(self) -> None:
        """Let nothing go on; return when the work under way is done."""
        self._is_over = True
        async with self._lock:
            pass


def _next(steps: Steps[T], failure: OSError | None) -> Work | None:
    return next(steps) if failure is None else steps.throw(failure)


def _done(work: Work) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    return None
