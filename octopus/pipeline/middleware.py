"""The app's own middleware, put together once for a handler and a partition instead of anew for each record."""

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from octopus.claim import Claim
from octopus.errors import ConfigurationError, ResultRefused
from octopus.events import Batch, Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Done, Outcome, Reject, Retry, Skipped
from octopus.pipeline.attempts import Outlet
from octopus.tracing import current
from octopus.types import BatchOutcome, Conclude, Handle, Middleware, Next, RunClaim


def through(middleware: Sequence[Middleware], handler: str, partition: TopicPartition, handle: Handle) -> Handle:
    """Return what hands records and batches of a partition through middleware, outermost first.

    Args:
        middleware: The app's own.
        handler: The name of what it stands around.
        partition: Whose records they are.
        handle: What is innermost.
    """
    outermost = middleware[0]
    first = _chain(middleware, handler, handle, 1)

    async def handle_wrapped(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        call = first if attempt == 1 else _chain(middleware, handler, handle, attempt)
        if isinstance(stored, Batch):
            batch = Batch(Record.at(partition, each) for each in stored)
            return _complete(batch, await call(batch), outermost, handler)
        if stored.headers or current.get():
            current.set(stored.headers)
        return checked(await call(Record.at(partition, stored)), outermost, handler)

    return handle_wrapped


def claim_through(
    middleware: Sequence[Middleware],
    handler: str,
    partition: TopicPartition,
    handle: Handle,
    conclude: Conclude,
    outlet: Outlet | None = None,
) -> RunClaim:
    """Return what does the same for single records that run back to back: one loop, and no call that is not needed.

    Args:
        middleware: As `through`.
        handler: As `through`.
        partition: As `through`.
        handle: As `through`.
        conclude: The error boundary.
        outlet: Where outputs go that no handler waits for.
    """
    outermost = middleware[0]
    first = _chain(middleware, handler, handle, 1)
    topic, number = partition

    async def run_claim(claim: Claim) -> Outcome | BatchOutcome:
        outcome: Outcome = DONE
        call = first if claim.attempt == 1 else _chain(middleware, handler, handle, claim.attempt)
        around = current.get()
        attempt = outlet.begin(claim.attempt, claim=claim) if outlet is not None else None
        try:
            for stored in claim.cursor:
                if outlet is not None and outlet.outputs.is_full:
                    await outlet.outputs.room()
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
                elif (outcome := checked(outcome, outermost, handler)) is SKIPPED:
                    claim.skipped += 1
                elif outcome is not DONE:
                    if attempt is not None:
                        attempt.fail(stored)  # it runs again
                    return outcome
                call = first  # all but the first one are at their first attempt
            return outcome
        except (Exception, CancelledError) as raised:  # noqa: BLE001 - the boundary decides
            error = raised
        finally:
            del outcome  # see `octopus.types`: middleware may have put an error into it
            if attempt is not None:
                attempt.end()
        try:
            return await conclude(stored, claim.attempt_of(stored), error)
        finally:
            # Its traceback holds this frame: together they would stay, and the record, until a garbage collection.
            del error

    return run_claim


def _chain(middleware: Sequence[Middleware], handler: str, handle: Handle, attempt: int) -> Next:
    """Link middleware for one attempt: nearly all records are at their first."""

    def innermost(record: Record | Batch) -> Awaitable[Any]:
        return handle(record, attempt)

    call = _knowing(innermost, handler, attempt)
    for position, each in reversed([*enumerate(middleware)]):
        call = _knowing(_link(each, call, is_outermost=position == 0), handler, attempt)
    return call


def _knowing(call: Callable[[Record | Batch], Awaitable[Any]], handler: str, attempt: int) -> Next:
    # Attributes of the function itself: they cost a record nothing, and an object with a __call__ would.
    known = cast("Any", call)
    known.handler, known.attempt = handler, attempt
    return cast("Next", known)


def _link(middleware: Middleware, call_next: Next, *, is_outermost: bool) -> Callable[[Record | Batch], Awaitable[Any]]:
    if inspect.iscoroutinefunction(middleware):
        if is_outermost:  # the chain's caller looks at what it returns
            return lambda record: middleware(record, call_next)

        async def run(record: Record | Batch) -> Any:
            outcome = await middleware(record, call_next)
            try:
                return outcome if outcome is DONE else _known(outcome, middleware, call_next.handler)
            finally:
                del outcome  # see `octopus.types`

        return run

    async def call(record: Record | Batch) -> Any:
        answer = middleware(record, call_next)
        if not inspect.isawaitable(answer):
            raise ResultRefused(
                f"middleware {name_of(middleware)!r} of handler {call_next.handler!r} is not async and returned "
                f"{_spelled(answer)}: write `async def`, and `return await call_next(record)`."
            )
        return _known(await answer, middleware, call_next.handler)

    return call


def checked(outcome: Any, middleware: Middleware, handler: str) -> Outcome:
    """Return what middleware returned, if that can be an outcome. What it calls a dead letter is in no topic yet.

    Args:
        outcome: What it returned.
        middleware: Which.
        handler: The name of what it stands around.

    Raises:
        Reject: It returned a dead letter.
        ResultRefused: It returned no outcome.
    """
    match outcome:
        case DeadLetter(reason):
            raise Reject(reason)
        case Done() | Skipped() | Retry():
            # The hot path knows the two constants by identity.
            return DONE if isinstance(outcome, Done) else SKIPPED if isinstance(outcome, Skipped) else outcome
        case _:
            raise _refused(outcome, middleware, handler)


def check_middleware(middleware: Any) -> None:
    """Refuse what cannot be called as middleware.

    Raises:
        ConfigurationError: The sentence says why.
    """
    if not callable(middleware):
        raise ConfigurationError(
            f"{middleware!r} is no middleware: write @app.middleware, without arguments, above "
            "`async def …(record, call_next)`."
        )
    name = name_of(middleware)
    if inspect.isasyncgenfunction(middleware) or inspect.isgeneratorfunction(middleware):
        raise ConfigurationError(
            f"middleware {name!r} is a generator: `return await call_next(record)`, without yield."
        )
    try:
        inspect.signature(middleware).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(
            f"middleware {name!r} is called with a record and call_next, which it cannot take: {error}."
        ) from error
    except ValueError:
        return  # a callable without a signature: only a call can tell


def name_of(middleware: Any) -> str:
    """Return the name of middleware for people."""
    return str(getattr(middleware, "__qualname__", type(middleware).__qualname__)).replace("<locals>.", "")


def _known(outcome: Any, middleware: Middleware, handler: str) -> Any:
    """Return what inner middleware returned, if the outer one can be told that."""
    if not isinstance(outcome, Done | Skipped | Retry | DeadLetter | BatchOutcome):
        raise _refused(outcome, middleware, handler)
    return outcome


def _refused(outcome: Any, middleware: Middleware, handler: str) -> ResultRefused:
    return ResultRefused(
        f"middleware {name_of(middleware)!r} of handler {handler!r} returned {_spelled(outcome)}, which is no outcome: "
        "`return await call_next(record)`."
    )


def _spelled(answer: Any) -> str:
    return "None" if answer is None else f"a value of type {type(answer).__qualname__}"


def _complete(batch: Batch, outcome: Any, middleware: Middleware, handler: str) -> BatchOutcome:
    """Give each record of a batch an outcome: what middleware did not pass on is skipped."""
    if isinstance(outcome, BatchOutcome):
        if outcome.batch is batch:
            return outcome
        known = {stored.offset: single for stored, single in outcome.outcomes()}
        outcomes = enumerate(known.get(stored.offset, SKIPPED) for stored in batch)
        return BatchOutcome(batch, {at: single for at, single in outcomes if single is not DONE}, outcome.retry)
    single = checked(outcome, middleware, handler)
    if single is DONE:
        return BatchOutcome(batch)
    others = dict.fromkeys(range(len(batch)), single)
    return BatchOutcome(batch, others, single if isinstance(single, Retry) else None)
