"""Tells cancellations by the runner of a handler from those that the handler brought upon itself.

A task knows how often it was cancelled, not by which caller. So the runner declares, before handlers begin, how to tell
whether their end is wanted. Any other cancellation is the handler's doing (`asyncio.current_task().cancel()`, a library that
never takes a request back), and so its failure.
"""

import asyncio
from contextvars import ContextVar
from typing import Protocol


class Judge(Protocol):
    """Knows about the task in which handlers run.

    Attributes:
        is_alone: Whether only one record has run since the last look for requests. If not, the request may come from a
            record that has finished.
    """

    is_alone: bool

    def is_to_end(self) -> bool:
        """Tell whether the task, which was cancelled, is to end."""
        ...


_judge: ContextVar[Judge | None] = ContextVar("octopus cancellation", default=None)


def judge_by(judge: Judge) -> None:
    """Let `judge` decide, from now on in this task, which cancellations are wanted."""
    _judge.set(judge)


def is_wanted() -> bool:
    """Tell whether the running task is to end; without a judge, it is."""
    judge = _judge.get()
    return judge is None or judge.is_to_end()


def is_alone() -> bool:
    """Tell whether only the record that runs now can have cancelled the running task."""
    judge = _judge.get()
    return judge is None or judge.is_alone


async def take_back(task: "asyncio.Task[object]") -> None:
    """Forget every request to cancel the running task, also one that was not delivered yet.

    Raises:
        asyncio.CancelledError: Its end is wanted after all.
    """
    while True:
        if task.cancelling() and is_wanted():
            await asyncio.sleep(0)  # where it arrives, unless it has: from Python 3.13 on `uncancel` would drop it
            raise asyncio.CancelledError
        while task.cancelling():
            task.uncancel()
        try:
            await asyncio.sleep(0)  # where a request arrives that was made while the task ran
        except asyncio.CancelledError:
            if is_wanted():
                raise
        else:
            return
