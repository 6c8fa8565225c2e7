"""Whose cancellation it is: that of whoever runs a handler, or one that the handler brought upon itself.

A task says how often it was asked to end, not by whom. So who runs handlers says before they begin how to tell whether
their end is wanted. Any other cancellation is the handler's doing (`asyncio.current_task().cancel()`, a library that never
takes a request back), and so its failure.
"""

import asyncio
from contextvars import ContextVar
from typing import Protocol


class Judge(Protocol):
    """Knows about the task in which handlers run.

    Attributes:
        is_alone: Whether one record only has run since somebody last looked for requests. If not, the request may be
            the doing of one that has finished.
    """

    is_alone: bool

    def is_to_end(self) -> bool:
        """Tell whether the task, which was cancelled, is to end."""
        ...


_judge: ContextVar[Judge | None] = ContextVar("octopus cancellation", default=None)


def judge_by(judge: Judge) -> None:
    """Let `judge` say, from now on in this task, whose cancellation one is."""
    _judge.set(judge)


def is_wanted() -> bool:
    """Tell whether the running task is to end. Where nobody has said how to tell, it is."""
    judge = _judge.get()
    return judge is None or judge.is_to_end()


def is_alone() -> bool:
    """Tell whether it can only be the record that runs now which has cancelled the running task."""
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
