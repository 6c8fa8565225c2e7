"""Calls the functions of timers: the one copy, for every driver."""

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from octopus.logs import get_logger
from octopus.routing import Timer

logger = get_logger("octopus.handlers")

END_TIMEOUT = 5.0
"""Seconds that a call has for its clean-up when it is cancelled."""


async def call_regularly(timer: Timer, note_failure: Callable[[Timer, Exception], None]) -> None:
    """Call a timer's function until cancelled; calls never overlap.

    Args:
        timer: Which.
        note_failure: Called with the exception of a call.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()  # variables that a call sets are there in the next one
    due = loop.time() + timer.seconds
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        # A task of its own: when it cancels that, or swallows a cancellation, it is not ours.
        call = loop.create_task(_call(timer), name=f"octopus timer {timer.name} calls", context=context)
        try:
            await asyncio.wait([call])
        finally:
            await _end(timer, call)
        if (error := _error_of(call)) is not None:
            note_failure(timer, error)
        due = max(due + timer.seconds, loop.time())


async def _call(timer: Timer) -> None:
    result: Any
    if inspect.iscoroutinefunction(timer.function):
        result = timer.function()
    else:
        result = await anyio.to_thread.run_sync(timer.function, abandon_on_cancel=True)
    if inspect.isawaitable(result):  # an object whose __call__ is async
        await result


async def _end(timer: Timer, call: "asyncio.Task[None]") -> None:
    if call.done():
        return
    call.cancel()
    await asyncio.wait([call], timeout=END_TIMEOUT)
    if not call.done():
        logger.warning("timer %s does not end although it was cancelled", timer.name)


def _error_of(call: "asyncio.Task[None]") -> Exception | None:
    """Return a call's failure.

    Raises:
        BaseException: It raised one that is no `Exception`.
    """
    if call.cancelled():
        return RuntimeError("it ended with CancelledError although nobody cancelled it, or cancelled its own task")
    error = call.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error
