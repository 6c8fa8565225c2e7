"""The boundary: past it there are no exceptions, only outcomes."""

import asyncio
import logging
import random
from collections.abc import Sequence
from operator import itemgetter

from octopus.cancellation import is_alone, is_wanted, take_back
from octopus.claim import Claim
from octopus.errors import CodecUnavailable, DecodeError, HandlerStopped, ResultRefused
from octopus.events import Batch, Record, StoredRecord, TopicPartition
from octopus.logs import get_logger
from octopus.outcomes import DeadLetter, Outcome, Retry
from octopus.pipeline.attempts import Attempt, Outlet
from octopus.publishing import current_attempt
from octopus.retries import RetryPolicy
from octopus.types import BatchOutcome, Conclude, ConcludeRefused, Defer, Handle, PublishDeadLetter, Run, RunClaim

logger = get_logger("octopus.handlers")

_position = itemgetter(0)

FATAL = (HandlerStopped, MemoryError)
"""Exceptions that are no event's fault: processing stops and nothing is settled."""


def boundary(
    name: str, partition: TopicPartition, policy: RetryPolicy, publish_dead_letter: PublishDeadLetter
) -> Conclude:
    """Return what turns the exceptions of a partition's records into outcomes.

    Args:
        name: The handler's, for the log.
        partition: Whose records they are.
        policy: Decides about failures.
        publish_dead_letter: Takes dead letters.
    """

    async def conclude(stored: StoredRecord, attempt: int, error: BaseException) -> Outcome:
        _disown(stored)
        outcome = await judge(policy, attempt, error)
        record = Record.at(partition, stored)
        log(name, record, attempt, outcome)
        if isinstance(outcome, DeadLetter):
            await publish_dead_letter(record, outcome, attempt)
        return outcome

    return conclude


def guard(handle: Handle, conclude: Conclude, outlet: Outlet | None = None) -> Run:
    """Make total what middleware or a deadline stands around; a bare handling calls `conclude` itself."""

    async def run(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        began: Attempt | None = None
        try:
            if outlet is not None:
                if outlet.outputs.is_full:
                    await outlet.outputs.room()
                began = outlet.begin(attempt, stored=stored)
            outcome = await handle(stored, attempt)
            try:
                if began is not None and isinstance(outcome, Retry):  # middleware has returned it
                    began.fail(stored)
                return outcome
            finally:
                del outcome  # see `octopus.types`
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - `failure` raises what is none
            error = raised
        finally:
            if began is not None:
                began.end()
        try:
            return await conclude(stored, attempt, error)
        finally:
            # Its traceback holds this frame: together they would stay, and the record, until a garbage collection.
            del error

    return run


def guard_batches(
    name: str,
    partition: TopicPartition,
    handle: Handle,
    policy: RetryPolicy,
    publish_dead_letter: PublishDeadLetter,
    outlet: Outlet | None = None,
) -> Run:
    """Make the handling of a partition's batches total.

    A batch that fails is retried whole. When it may not be retried any more its records run one by one, so that only
    those that fail by themselves are dead-lettered.
    """

    async def run(batch: StoredRecord, attempt: int) -> BatchOutcome:
        assert isinstance(batch, Batch)
        outcome = await attempt_batch(batch, attempt)
        try:
            if outcome.others:
                await give_up(outcome, attempt)
            return outcome
        finally:
            del outcome  # see `octopus.types`

    async def give_up(outcome: BatchOutcome, attempt: int) -> None:
        for position, single in sorted(outcome.others.items(), key=_position):
            if isinstance(single, DeadLetter):
                record = Record.at(partition, outcome.batch[position])
                log(name, record, attempt, single)
                await publish_dead_letter(record, single, attempt)

    async def attempt_batch(batch: Batch, attempt: int) -> BatchOutcome:
        began: Attempt | None = None
        try:
            if outlet is not None:
                if outlet.outputs.is_full:
                    await outlet.outputs.room()
                began = outlet.begin(attempt, stored=batch)
            outcome = await handle(batch, attempt)
            try:
                assert isinstance(outcome, BatchOutcome), "a batch comes to the outcome of each of its records"
                if began is not None and outcome.retry is not None and len(outcome.others) == len(batch):
                    began.fail(batch)  # middleware has returned it
                return outcome
            finally:
                del outcome  # see `octopus.types`
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - `failure` raises what is none
            error = raised
        finally:
            if began is not None:
                began.end()
        try:
            return await conclude_batch(batch, attempt, error)
        finally:
            del error  # as in `guard`; nor may this frame hold outcomes, which have the error, too

    async def conclude_batch(batch: Batch, attempt: int, error: BaseException) -> BatchOutcome:
        _disown(batch)
        decision = await judge(policy, attempt, error)
        if isinstance(decision, Retry):
            log(name, Record.at(partition, batch[0]), attempt, decision)
            return BatchOutcome(batch, dict.fromkeys(range(len(batch)), decision), decision)
        if len(batch) == 1 or isinstance(error, ResultRefused):  # the handler did run, and would return the same
            return BatchOutcome(batch, dict.fromkeys(range(len(batch)), decision))
        # Records raise below this frame, and perhaps the same error: it holds none of them, nor what becomes of them.
        del decision, error
        return joined(batch, [await attempt_batch(Batch([stored]), attempt) for stored in batch])

    return run


def joined(batch: Batch, singles: Sequence[BatchOutcome]) -> BatchOutcome:
    """Return the outcome of a batch whose records ran one by one."""
    later = [single.retry for single in singles if single.retry is not None]
    longest = max(later, key=lambda retry: retry.after, default=None)
    others = {position: each for position, single in enumerate(singles) for each in single.others.values()}
    return BatchOutcome(batch, others, longest)


def conclude_batches(
    name: str, partition: TopicPartition, policy: RetryPolicy, publish_dead_letter: PublishDeadLetter
) -> ConcludeRefused:
    """Return what decides about batches whose outputs a broker has refused, after they were handled.

    They run again as any that fail: together and, when they may not any more, one by one, so that only those are
    dead-lettered whose own outputs are refused.
    """

    async def conclude(stored: StoredRecord, attempt: int, error: BaseException) -> BatchOutcome:
        batch = stored if isinstance(stored, Batch) else Batch([stored])
        decision = await judge(policy, attempt, error)
        if isinstance(decision, Retry):
            log(name, Record.at(partition, batch[0]), attempt, decision)
            return BatchOutcome(batch, dict.fromkeys(range(len(batch)), decision), decision)
        if len(batch) > 1 and not isinstance(error, ResultRefused):
            apart = Retry(0.0, decision.error if isinstance(decision, DeadLetter) else None, counted=False)
            return BatchOutcome(batch, dict.fromkeys(range(len(batch)), apart), apart, apart=True)
        for single in batch:
            record = Record.at(partition, single)
            log(name, record, attempt, decision)
            if isinstance(decision, DeadLetter):
                await publish_dead_letter(record, decision, attempt)
        return BatchOutcome(batch, dict.fromkeys(range(len(batch)), decision))

    return conclude


def _disown(stored: StoredRecord) -> None:
    """Let what a failed run has published belong to no record any more."""
    if isinstance(attempt := current_attempt.get(), Attempt):
        attempt.fail(stored)


def deferring(partition: TopicPartition, run: Run, beyond: float, defer: Defer) -> Run:
    """Defer what a run wants to have retried after more than `beyond` seconds."""

    async def run_deferring(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        outcome = await run(stored, attempt)
        try:
            if isinstance(outcome, Retry) and outcome.after > beyond:
                return await defer(Record.at(partition, stored), outcome, attempt)
            return outcome
        finally:
            del outcome  # see `octopus.types`

    return run_deferring


def deferring_conclusions(
    partition: TopicPartition, conclude: ConcludeRefused, beyond: float, defer: Defer
) -> ConcludeRefused:
    """Do the same for what is concluded after a run."""

    async def conclude_deferring(stored: StoredRecord, attempt: int, error: BaseException) -> Outcome | BatchOutcome:
        outcome = await conclude(stored, attempt, error)
        if isinstance(outcome, Retry) and outcome.after > beyond:
            return await defer(Record.at(partition, stored), outcome, attempt)
        return outcome

    return conclude_deferring


def deferring_in_claims(partition: TopicPartition, run_claim: RunClaim, beyond: float, defer: Defer) -> RunClaim:
    """Do the same for the record at which a claim ends."""

    async def run_claim_deferring(claim: Claim) -> Outcome | BatchOutcome:
        outcome = await run_claim(claim)
        try:
            if isinstance(outcome, Retry) and outcome.after > beyond:
                stored = claim.current
                return await defer(Record.at(partition, stored), outcome, claim.attempt_of(stored))
            return outcome
        finally:
            del outcome  # see `octopus.types`

    return run_claim_deferring


async def judge(policy: RetryPolicy, attempt: int, error: BaseException) -> Outcome:
    """Decide about what a handler raised. Raises as `failure`."""
    cause = failure(error)
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        await take_back(task)
        if not is_alone():  # perhaps another one did it, which had returned by then
            return Retry(0.0, cause, counted=False)
    return decide(policy, attempt, cause)


def decide(policy: RetryPolicy, attempt: int, error: Exception) -> Outcome:
    """Ask the policy about a failure, also about one whose own text cannot be had."""
    try:
        return policy.decide(attempt, error, random.random())
    except Exception:  # noqa: BLE001 - str(error) runs the exception's own code
        return DeadLetter(f"failed with {type(error).__name__}, whose text cannot be read", error)


def log(name: str, record: Record, attempt: int, outcome: Outcome) -> None:
    """Write one line about a failure, with its traceback the first time."""
    match outcome:
        case Retry(after, error) if error is not None:
            logger.warning(
                "%s failed at %s, attempt %d: %s: %s; again in %.2f s",
                name,
                record.coordinates,
                attempt,
                type(error).__name__,
                _text(error),
                after,
                exc_info=error if attempt == 1 and not isinstance(error, CodecUnavailable) else None,
            )
        case DeadLetter(reason, error, rejected):
            level = logging.INFO if rejected else logging.ERROR
            # A handler's own mistake shows where it is; that bytes do not decode is said completely by the reason.
            trace = error if attempt == 1 and not isinstance(error, DecodeError | ResultRefused) else None
            logger.log(level, "%s gives up on %s: %s", name, record.coordinates, reason, exc_info=trace)
        case _:
            pass


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the exception's own code
        return "(its text cannot be read)"


def failure(error: BaseException) -> Exception:
    """Return an exception that is an event's failure; raise again what is not.

    A handler that cancelled itself failed; one whose end is wanted must go.

    Raises:
        HandlerStopped: Processing stops.
        MemoryError: No event's fault: nothing is settled.
        asyncio.CancelledError: The run is being cancelled from outside.
    """
    if isinstance(error, FATAL) or not isinstance(error, Exception | asyncio.CancelledError):
        raise error
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if task is None:
        raise error
    how = "although nobody cancelled it"
    if task.cancelling():
        if is_wanted():
            raise error
        how = "because it cancelled the task it runs in"
    wrapped = RuntimeError(f"the handler ended with CancelledError {how}")
    wrapped.__cause__ = error
    return wrapped
