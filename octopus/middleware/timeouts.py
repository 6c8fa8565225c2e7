"""A deadline for every run of a handler, without a timer for each."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class _Watch:
    __slots__ = ("deadline", "expired", "task")

    def __init__(self, deadline: float, task: "asyncio.Task[object] | None") -> None:
        self.deadline = deadline
        self.task = task
        self.expired = False


class Deadlines:
    """Cancels what runs longer than a fixed time.

    All limits are equal, so they fall due in the order they were set: one timer for the oldest serves all, and a run
    that ends in time costs an append and a store (`asyncio.timeout` costs 3 µs).

    Args:
        seconds: The limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watches: deque[_Watch] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def limit(self, work: Awaitable[T]) -> T:
        """Await `work`.

        Raises:
            TimeoutError: It took longer than the limit and was cancelled. A sync handler's thread goes on to its end;
                its result is discarded.
        """
        loop = asyncio.get_running_loop()
        watch = _Watch(loop.time() + self._seconds, asyncio.current_task())
        self._watches.append(watch)
        if self._timer is None:
            self._timer = loop.call_at(watch.deadline, self._ring, loop)
        try:
            return await work
        except asyncio.CancelledError:
            if watch.expired and watch.task is not None and watch.task.uncancel() <= 0:
                raise TimeoutError(f"the handler took longer than {self._seconds:g} s") from None
            raise
        finally:
            watch.task = None

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        watches = self._watches
        while watches and (watches[0].task is None or watches[0].deadline <= now):
            watch = watches.popleft()
            if watch.task is not None:
                watch.expired = True
                watch.task.cancel()
        self._timer = loop.call_at(watches[0].deadline, self._ring, loop) if watches else None
