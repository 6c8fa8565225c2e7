"""One record, several handlers: a group whose handlers share a consumer."""

from collections.abc import Sequence
from typing import NamedTuple

from octopus.claim import Claim
from octopus.events import StoredRecord
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Deferred, Done, Outcome, Retry
from octopus.pipeline.attempts import Outlet
from octopus.types import BatchOutcome, Choose, ConcludeRefused, Run, RunClaim


class Left(NamedTuple):
    """What is left to do about a record.

    Attributes:
        handlers: Position and attempts so far of each that is not finished.
        runs: Where the positions are in.
        done: Whether one has finished.
        dead: Whether one has given up.
        deferred: What it came to in one that goes on with it in its retry topic.
    """

    handlers: Sequence[tuple[int, int]]
    runs: Sequence[Run]
    done: bool = False
    dead: bool = False
    deferred: Deferred | None = None


def fan_out(
    runs: Sequence[Run],
    choose: Choose | None = None,
    unsure: Sequence[Run] = (),
    outlets: Sequence[Outlet | None] = (),
) -> RunClaim:
    """Run records through several handlers; each is settled when all of them are finished with it.

    A handler that wants a retry gets one alone: those that are finished do not run again. What is left to do is kept
    here, by offset, and so ends with the assignment this was bound for.

    Args:
        runs: The handlers.
        choose: Says which of them want a record, so that the others cost nothing; all do when None.
        unsure: The handlers behind their own filters, for a record at which `choose` raises: what is wrong is theirs to say.
        outlets: Where outputs of each go: one that is refused brings its record back to its own handler only.
    """
    everyone = tuple(range(len(runs)))
    unfinished: dict[int, Left] = {}

    def keep_refused(number: int, conclude: ConcludeRefused) -> ConcludeRefused:
        async def conclude_kept(stored: StoredRecord, attempt: int, error: BaseException) -> Outcome | BatchOutcome:
            outcome = await conclude(stored, attempt, error)
            before = unfinished.get(stored.offset)
            again = [*(before.handlers if before else ())]
            if isinstance(outcome, Retry):
                again.append((number, attempt - 1 + outcome.counted))
            if again:
                is_dead = isinstance(outcome, DeadLetter) or (before is not None and before.dead)
                unfinished[stored.offset] = Left(again, unsure or runs, done=True, dead=is_dead)
            return outcome

        return conclude_kept

    for number, outlet in enumerate(outlets):
        if outlet is not None:
            outlet.conclude = keep_refused(number, outlet.conclude)

    async def run_claim(claim: Claim) -> Outcome | BatchOutcome:
        outcome: Outcome | BatchOutcome = DONE
        try:
            for stored in claim.cursor:
                left = unfinished.pop(stored.offset, None) if unfinished else None
                if left is None:
                    where = runs
                    try:
                        chosen = choose(stored) if choose is not None else everyone
                    except Exception:  # noqa: BLE001 - see `unsure`
                        chosen, where = everyone, unsure
                    if len(chosen) == 1:  # as it mostly is: no handler wants what another does
                        outcome = await where[chosen[0]](stored, 1)
                        if outcome is DONE:
                            continue
                        if isinstance(outcome, Retry):
                            unfinished[stored.offset] = Left([(chosen[0], int(outcome.counted))], where)
                            return outcome
                    else:
                        left = Left([(number, 0) for number in chosen], where)
                if left is not None:
                    outcome = await work(stored, left)
                if outcome is SKIPPED:
                    claim.skipped += 1
                elif outcome is not DONE:
                    return outcome
            return outcome
        finally:
            del outcome  # see `octopus.types`

    async def work(stored: StoredRecord, left: Left) -> Outcome:
        handlers, where, done, dead, deferred = left
        again: list[tuple[int, int]] = []
        wait: Retry | None = None
        outcome: Outcome | BatchOutcome | None = None
        try:
            for number, attempts in handlers:
                outcome = await where[number](stored, attempts + 1)
                match outcome:
                    case Retry(after, _, counted):
                        again.append((number, attempts + counted))
                        wait = outcome if wait is None or after > wait.after else wait
                    case Done():
                        done = True
                    case DeadLetter():
                        dead = True
                    case Deferred():
                        deferred = outcome
                    case _:
                        pass
            if wait is not None:
                unfinished[stored.offset] = Left(again, where, done, dead, deferred)
                return wait
            if dead:
                return DeadLetter("given up by one of several handlers")
            return deferred or (DONE if done else SKIPPED)
        finally:
            del outcome, wait, deferred  # see `octopus.types`

    return run_claim
