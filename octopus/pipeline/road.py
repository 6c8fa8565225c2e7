"""The road of a partition's records through one handler, in its two forms.

*Wrapped* is a chain of calls. Each layer stands there only where something asks for it, outermost first:

    deferral       a long wait goes to the retry topic           retry_topic=
    boundary       exceptions become outcomes                    always
    outbox         what an attempt publishes waits for it        delivery="exactly_once"
    deadline       a run that takes too long is cancelled        timeout=
    middleware     the app's own                                 @app.middleware
    handling       filter, decode, call, publish                 always

*Fused* does the same in one loop over the records of a claim. It has no place for what must know where each run begins
and ends: a deadline, an outbox, a batch.
"""

import dataclasses

from octopus.events import StoredRecord, TopicPartition
from octopus.outcomes import Outcome
from octopus.pipeline.attempts import AssignedOutputs, Outlet
from octopus.pipeline.boundary import (
    boundary,
    conclude_batches,
    decide,
    deferring,
    deferring_conclusions,
    deferring_in_claims,
    guard,
    guard_batches,
)
from octopus.pipeline.dead_letters import DeadLetters
from octopus.pipeline.deadlines import Deadlines
from octopus.pipeline.handling import Handling
from octopus.pipeline.middleware import claim_through, through
from octopus.pipeline.outputs import Outbox
from octopus.routing import Route
from octopus.types import (
    BatchOutcome,
    Conclude,
    ConcludeRefused,
    Defer,
    Handle,
    Middleware,
    PublishDeadLetter,
    Run,
    RunClaim,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Road:
    """One handler of a group, compiled, with everything that stands around it.

    Attributes:
        route: What was said about it.
        handling: The handler itself.
        dead_letters: Where what it gives up goes.
        middleware: The app's own, outermost first.
        deadlines: Cancels runs that take too long; None without a time limit.
        defer: Takes long retries to their topic; None when they wait in their lane.
    """

    route: Route
    handling: Handling
    dead_letters: DeadLetters
    middleware: tuple[Middleware, ...] = ()
    deadlines: Deadlines | None = None
    defer: Defer | None = None

    @property
    def can_fuse(self) -> bool:
        """Whether the fused form does everything that this handler asks for."""
        return self.route.batch is None and self.deadlines is None and self.route.delivery != "exactly_once"

    def outlet(self, partition: TopicPartition, outputs: AssignedOutputs | None) -> Outlet | None:
        """Return where outputs go that no handler waits for; None where there is no such place."""
        if outputs is None:
            return None
        route, publish = self.route, self.dead_letters.publish
        conclude: ConcludeRefused
        if route.batch is not None:
            conclude = conclude_batches(route.name, partition, route.retry, publish)
        else:
            conclude = self._conclude(partition)
        if self.defer is not None:
            conclude = deferring_conclusions(partition, conclude, route.retry.defer_beyond, self.defer)
        return outputs.outlet(route.name, conclude)

    def fused(self, partition: TopicPartition, outlet: Outlet | None = None) -> RunClaim:
        """Return the fused form for the records of one partition."""
        conclude = self._conclude(partition)
        if self.middleware:
            handle = self.handling.bind(partition, outlet)
            run_claim = claim_through(self.middleware, self.route.name, partition, handle, conclude, outlet)
        else:
            run_claim = self.handling.bind_claim(partition, conclude, outlet)
        if self.defer is None:
            return run_claim
        return deferring_in_claims(partition, run_claim, self.route.retry.defer_beyond, self.defer)

    def chosen(self, partition: TopicPartition, outlet: Outlet | None = None) -> Run:
        """Return what runs those records of one partition that the filter is known to match, without middleware."""
        conclude = self._conclude(partition)
        run = self.handling.bind_single(partition, conclude, filtered=False, outlet=outlet)
        return self._deferring(partition, run, None)

    def wrapped(self, partition: TopicPartition, outbox: Outbox | None = None, outlet: Outlet | None = None) -> Run:
        """Return the wrapped form for the records, or batches, of one partition.

        Args:
            partition: Which one.
            outbox: Gets what attempts publish.
            outlet: Where outputs go that no handler waits for, where there is no outbox.
        """
        route, publish_dead_letter = self.route, self.publish_dead_letter(outbox)
        if route.batch is not None:
            handle = self._around(partition, self.handling.bind_batch(partition, self._decide, outlet), outbox)
            return guard_batches(route.name, partition, handle, route.retry, publish_dead_letter, outlet)
        handle = self._around(partition, self.handling.bind(partition, outlet), outbox)
        run = guard(handle, boundary(route.name, partition, route.retry, publish_dead_letter), outlet)
        return self._deferring(partition, run, outbox)

    def publish_dead_letter(self, outbox: Outbox | None) -> PublishDeadLetter:
        """Return what takes this handler's dead letters away: to their topic, or to an outbox first."""
        publish = self.dead_letters.publish
        return publish if outbox is None else outbox.publishing_dead_letters(publish)

    def deferring_through(self, defer: Defer, outbox: Outbox | None) -> Defer:
        """Return `defer`, or what writes to an outbox first."""
        return defer if outbox is None else outbox.deferring(self.route.name, defer, self.dead_letters.publish)

    def _around(self, partition: TopicPartition, handle: Handle, outbox: Outbox | None) -> Handle:
        """Put around a handling what may still raise: middleware, deadline, outbox."""
        if self.middleware:
            handle = through(self.middleware, self.route.name, partition, handle)
        if self.deadlines is not None:
            handle = _within(self.deadlines, handle)
        if outbox is not None:
            handle = outbox.attempting(self.route.name, handle, self.dead_letters.publish)
        return handle

    def _deferring(self, partition: TopicPartition, run: Run, outbox: Outbox | None) -> Run:
        if self.defer is None:
            return run
        return deferring(partition, run, self.route.retry.defer_beyond, self.deferring_through(self.defer, outbox))

    def _conclude(self, partition: TopicPartition) -> Conclude:
        return boundary(self.route.name, partition, self.route.retry, self.dead_letters.publish)

    def _decide(self, stored: StoredRecord, attempt: int, error: Exception) -> Outcome:
        return decide(self.route.retry, attempt, error)


def _within(deadlines: Deadlines, handle: Handle) -> Handle:
    limit = deadlines.limit

    async def handle_in_time(stored: StoredRecord, attempt: int) -> Outcome | BatchOutcome:
        return await limit(handle(stored, attempt))

    return handle_in_time
