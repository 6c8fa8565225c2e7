"""Claims of one record, and records of a claim: the two ways between `Run` and `RunClaim`."""

from octopus.claim import Claim
from octopus.events import StoredRecord
from octopus.outcomes import DONE, SKIPPED, Outcome
from octopus.types import BatchOutcome, Run, RunClaim


def in_turn(run: Run) -> RunClaim:
    """Run the records of a claim one by one."""

    async def run_claim(claim: Claim) -> Outcome | BatchOutcome:
        outcome: Outcome | BatchOutcome = DONE
        try:
            for stored in claim.cursor:
                outcome = await run(stored, claim.attempt_of(stored))
                if outcome is SKIPPED:
                    claim.skipped += 1
                elif outcome is not DONE:
                    break
            return outcome
        finally:
            del outcome  # see `octopus.types`

    return run_claim


def one_by_one(run_claim: RunClaim) -> Run:
    """Make of what runs claims what runs single records: each is a claim of its own."""

    async def run(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        return await run_claim(Claim((stored,), attempt))

    return run
