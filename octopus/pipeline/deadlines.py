"""A deadline for every run of a handler, without a timer for each."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class _Watch:
    __slots__ = ("before", "deadline", "expired", "task")

    def __init__(self, deadline: float, task: "asyncio.Task[object]") -> None:
        self.deadline = deadline
        self.task = task
        self.before = task.cancelling()
        self.expired = False


class Deadlines:
    """Cancels what runs longer than a fixed time.

    All limits are equal, so they fall due in the order they were set, which is the order of a dict: one timer for the
    oldest serves all, and a run that ends in time costs an entry and its removal (`asyncio.timeout` costs 3 µs).

    Args:
        seconds: The limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watches: dict[_Watch, None] = {}
        self._late: set[asyncio.Task[object]] = set()  # cancelled, and not back yet
        self._timer: asyncio.TimerHandle | None = None

    async def limit(self, work: Awaitable[T]) -> T:
        """Await `work`.

        Raises:
            TimeoutError: It took longer than the limit and was cancelled, also if it returned then: what it did was cut
                short. A sync handler's thread goes on to its end; its result is discarded.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        watch = _Watch(loop.time() + self._seconds, task)
        self._watches[watch] = None
        if self._timer is None:
            self._timer = loop.call_at(watch.deadline, self._ring, loop)
        try:
            result = await work
        except asyncio.CancelledError:
            # Ours unless another request to end it was made meanwhile. One that was made before and never taken back (some
            # libraries do not) does not count.
            if watch.expired and task.cancelling() == watch.before + 1:
                raise self._error() from None
            raise
        finally:
            del self._watches[watch]
            if watch.expired:
                self._late.discard(task)
                task.uncancel()
        try:
            if watch.expired:
                raise self._error()
            return result
        finally:
            del result  # see `octopus.types`

    def check(self) -> None:
        """See that the time of what the running task does is not up: a handler may go on although it was cancelled.

        Raises:
            TimeoutError: It is.
        """
        if self._late and asyncio.current_task() in self._late:
            raise self._error()

    def _error(self) -> TimeoutError:
        return TimeoutError(f"the handler took longer than {self._seconds:g} s")

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer = None
        for watch in self._watches:
            if watch.deadline > now:
                self._timer = loop.call_at(watch.deadline, self._ring, loop)
                return
            if not watch.expired:
                watch.expired = True
                self._late.add(watch.task)
                watch.task.cancel()
