"""The app's own middleware, put together once for a handler and a partition instead of anew for each record."""

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from octopus.events import Batch, Record, TopicPartition
from octopus.middleware.errors import Conclude
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Done, Outcome, Reject, Retry, Skipped
from octopus.tracing import current
from octopus.types import BatchOutcome, Middleware, Next, RunStretch, Stretch

Handle = Callable[[Any, int], Awaitable[Any]]
"""One record or batch and the attempt to its outcome; it raises what the handler raises."""


def through(middleware: Sequence[Middleware], partition: TopicPartition, handle: Handle) -> Handle:
    """Return what hands records and batches of a partition through middleware, outermost first.

    Args:
        middleware: The app's own.
        partition: Whose records they are.
        handle: What is innermost.
    """
    first = _chain(middleware, handle, 1)

    async def handle_wrapped(stored: Any, attempt: int) -> Any:
        call = first if attempt == 1 else _chain(middleware, handle, attempt)
        if isinstance(stored, Batch):
            batch = Batch(Record.at(partition, each) for each in stored)
            return _complete(batch, await call(batch))
        if stored.headers or current.get():
            current.set(stored.headers)
        return checked(await call(Record.at(partition, stored)))

    return handle_wrapped


def stretch_through(
    middleware: Sequence[Middleware], partition: TopicPartition, handle: Handle, conclude: Conclude
) -> RunStretch:
    """Return what does the same for single records that run back to back: one loop, and no call that is not needed.

    Args:
        middleware: As `through`.
        partition: As `through`.
        handle: As `through`.
        conclude: The error boundary.
    """
    first = _chain(middleware, handle, 1)
    topic, number = partition

    async def run_stretch(stretch: Stretch) -> Outcome | BatchOutcome:
        outcome: Outcome = DONE
        call = first if stretch.attempt == 1 else _chain(middleware, handle, stretch.attempt)
        around = current.get()
        try:
            for stored in stretch.cursor:
                headers = stored.headers
                if headers or around:
                    around = headers
                    current.set(headers)
                if type(stored) is not Record:  # `Record.at`, without the call
                    record = Record(
                        topic, number, stored.offset, stored.timestamp, stored.key, stored.value, tuple(headers)
                    )
                else:
                    record = stored
                outcome = await call(record)
                if outcome is DONE:
                    pass
                elif (outcome := checked(outcome)) is SKIPPED:
                    stretch.skipped += 1
                elif outcome is not DONE:
                    return outcome
                call = first  # all but the first one are at their first attempt
            return outcome
        except (Exception, CancelledError) as raised:  # noqa: BLE001 - the boundary decides
            error = raised
        return await conclude(stored, stretch.attempt_of(stored), error)

    return run_stretch


def _chain(middleware: Sequence[Middleware], handle: Handle, attempt: int) -> Next:
    """Link middleware for one attempt: nearly all records are at their first."""

    def innermost(record: Record | Batch) -> Awaitable[Any]:
        return handle(record, attempt)

    call: Next = innermost
    for each in reversed(middleware):
        call = _link(each, call)
    return call


def _link(middleware: Middleware, call_next: Next) -> Next:
    return lambda record: middleware(record, call_next)


def checked(outcome: Any) -> Outcome:
    """Return what middleware returned, if that can be an outcome. Nothing has buried what it calls a dead letter."""
    match outcome:
        case DeadLetter(reason):
            raise Reject(reason)
        case Done() | Skipped() | Retry():
            # The hot path knows the two constants by identity.
            return DONE if isinstance(outcome, Done) else SKIPPED if isinstance(outcome, Skipped) else outcome
        case _:
            raise TypeError(
                f"middleware returned {outcome!r}, which is no outcome: return what call_next(record) returned."
            )


def _complete(batch: Batch, outcome: Any) -> BatchOutcome:
    """Give each record of a batch an outcome: what middleware did not pass on is skipped."""
    if isinstance(outcome, BatchOutcome):
        known = {stored.offset: single for stored, single in outcome.outcomes}
        return BatchOutcome([(stored, known.get(stored.offset, SKIPPED)) for stored in batch], outcome.retry)
    single = checked(outcome)
    return BatchOutcome([(stored, single) for stored in batch], single if isinstance(single, Retry) else None)
