"""One invocation's records through one pipeline."""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from octopus.claim import Claim
from octopus.errors import HandlerStopped
from octopus.events import Record, StoredRecord, TopicPartition
from octopus.logs import get_logger
from octopus.outcomes import DONE, SKIPPED, Outcome, Retry
from octopus.pipeline import Pipeline
from octopus.pipeline.attempts import AssignedOutputs
from octopus.runner import CLOSE_TIMEOUT, Assignment, Runner
from octopus.types import BatchOutcome, RunClaim
from octopus.unacknowledged import Unacknowledged

logger = get_logger("octopus.triggers")

OUTPUT_BYTES = 32 * 2**20
"""Bytes published and not acknowledged, beyond which handlers wait."""

LEFT_OPEN = Retry(math.inf)
"""Not in this invocation: the record stays unsettled and its lane claimed; the service delivers it again."""


class Delivery:
    """Runs records through a pipeline until all are settled, left open, or time is up.

    Args:
        pipeline: To run the records through.
        stop_at: Loop time from which on no record is started.
        cancel_at: Loop time at which running handlers are cancelled.
        retry_in_process: Whether a retry that falls due before `stop_at` runs here.
    """

    def __init__(self, pipeline: Pipeline, *, stop_at: float, cancel_at: float, retry_in_process: bool) -> None:
        self._pipeline = pipeline
        self._stop_at = stop_at
        self._cancel_at = cancel_at
        # The clean-up of handlers and the answer share the time that is left then.
        self._clean_up_time = (cancel_at - stop_at) / 2 if math.isfinite(stop_at) else CLOSE_TIMEOUT
        self._retry_in_process = retry_in_process
        self._clock = asyncio.get_running_loop().time
        # A function waits for everything it publishes; what one invocation brings is bounded by its service.
        self._outputs = pipeline.outputs_in_flight(OUTPUT_BYTES)
        self._received: dict[TopicPartition, list[int]] = {}
        self._assignments: dict[TopicPartition, Assignment] = {}
        self._runner = Runner(
            self,
            ordering=pipeline.ordering,
            concurrency=pipeline.concurrency,
            batch=pipeline.batch,
            within=0.0,  # there is nothing more to wait for: the service has filled the batch already
            reschedule=retry_in_process,
            publications=self._outputs.publications,
        )

    def submit(self, records: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Take over the records that this pipeline reads."""
        for partition, consecutive in records.items():
            if self._pipeline.reads(partition.topic):
                offsets = self._received[partition] = [record.offset for record in consecutive]
                assignment = self._assignments[partition] = self._runner.open(partition, offsets[0])
                self._runner.submit(assignment, consecutive, offsets[-1] + 1, 0)

    async def finish(self) -> dict[TopicPartition, list[int]]:
        """Run everything; return the offsets that are to be delivered again."""
        try:
            async with asyncio.timeout_at(self._cancel_at):
                await self._run_out()
        except TimeoutError:
            logger.warning("%s: time is up; handlers that still run are cancelled", self._pipeline.group)
        if self._runner.stopped.done():
            logger.error("%s stopped: %s", self._pipeline.group, self._runner.stopped.result())
        if not await self._runner.close(self._clean_up_time):
            logger.warning("%s: some handlers do not end although they were cancelled", self._pipeline.group)
        await self._outputs.close()
        return {partition: left for partition, each in self._assignments.items() if (left := self._left(each))}

    async def _run_out(self) -> None:
        while True:
            await self._runner.quiet()
            due = self._runner.next_due
            if due is None or due >= self._stop_at:
                return
            await asyncio.sleep(due - self._clock())

    def _left(self, assignment: Assignment) -> list[int]:
        unsettled = assignment.ledger.unsettled()
        if not unsettled or self._pipeline.ordering != "partition":
            return unsettled
        # The service delivers single records again, behind those that are settled: the order of the partition is kept
        # only if all records from the first open one on come again, including finished ones of its batch.
        return [offset for offset in self._received[assignment.partition] if offset >= unsettled[0]]

    # ── the application ───────────────────────────────────────────────────────────────────────────────────────────

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the pipeline's road, which takes records while there is time and leaves the others open."""
        inner = self._pipeline.bind(partition, outputs=AssignedOutputs(self._outputs, unacknowledged))
        clock, stop_at = self._clock, self._stop_at
        has_end = math.isfinite(stop_at)

        async def run_claim(claim: Claim) -> Outcome | BatchOutcome:
            records = claim.cursor
            if has_end:
                claim.cursor = _while_time(records, clock, stop_at)
            try:
                outcome = await inner(claim)
            except HandlerStopped as reason:
                # A worker would stop here; a function has the next invocation, and its service has a destination for
                # records that fail for good.
                logger.error(  # noqa: TRY400
                    "%s leaves %s@%d open: %s", self._pipeline.group, partition, claim.current.offset, reason
                )
                return LEFT_OPEN
            try:
                if outcome is DONE or outcome is SKIPPED:
                    # Records are left because time was up: the first of them stands for all.
                    return outcome if next(records, None) is None else LEFT_OPEN
                match outcome:
                    case Retry(after) if not self._fits(after):
                        return LEFT_OPEN
                    case BatchOutcome(retry=Retry(after)) if not self._fits(after):
                        return outcome._replace(retry=LEFT_OPEN)
                return outcome
            finally:
                del outcome  # see `octopus.types`

        return run_claim

    def _fits(self, after: float) -> bool:
        return self._retry_in_process and self._clock() + after < self._stop_at


def _while_time(records: Iterator[StoredRecord], clock: Callable[[], float], stop_at: float) -> Iterator[StoredRecord]:
    """Give records until time is up, and take none of them that it does not give."""
    if clock() >= stop_at:
        return
    for stored in records:
        yield stored
        if clock() >= stop_at:
            return
