"""From a handler to its outputs in flight: the outlet of a handler, and its attempts, which say whose an output is.

Invariants, between any two steps:

- What is published while an attempt runs is its record's: that of its claim which runs then. `end` comes before anything else runs.
- A run that has failed has no outputs any more: what is refused of it is no second failure.
"""

import asyncio
from functools import partial
from typing import NamedTuple

from octopus.claim import Claim
from octopus.errors import ConfigurationError, ResultRefused
from octopus.events import Batch, Published, StoredRecord, settles_at
from octopus.outcomes import Outcome
from octopus.pipeline.in_flight import OutputsInFlight
from octopus.publishing import current_attempt
from octopus.transports.base import Outgoing, Producer
from octopus.types import BatchOutcome, ConcludeRefused
from octopus.unacknowledged import Refusal, Unacknowledged


class AssignedOutputs(NamedTuple):
    """The outputs of one assignment of a partition.

    Attributes:
        outputs: Of its group.
        unacknowledged: Its own.
    """

    outputs: OutputsInFlight
    unacknowledged: Unacknowledged

    def outlet(self, name: str, conclude: ConcludeRefused) -> "Outlet":
        """Return where the outputs of one handler go."""
        return Outlet(self.outputs, self.unacknowledged, name, conclude)


class Outlet:
    """Where the outputs of one handler go, for one assignment of a partition.

    Args:
        outputs: Of its group.
        unacknowledged: Of the assignment.
        name: The handler's.
        conclude: Takes a record whose output is refused the road of failure. What stands around the handler may stand
            around this, too.
    """

    __slots__ = ("conclude", "name", "outputs", "unacknowledged")

    def __init__(
        self, outputs: OutputsInFlight, unacknowledged: Unacknowledged, name: str, conclude: ConcludeRefused
    ) -> None:
        self.outputs = outputs
        self.unacknowledged = unacknowledged
        self.name = name
        self.conclude = conclude

    def begin(self, number: int, *, claim: Claim | None = None, stored: StoredRecord | None = None) -> "Attempt":
        """Note that the handler begins with a record, or with those of a claim one after the other.

        Args:
            number: Of the attempt.
            claim: The claim.
            stored: Else the record, or batch.
        """
        attempt = Attempt(self, number, claim, stored)
        current_attempt.set(attempt)
        return attempt


class Attempt:
    """One run of a handler, or its runs of a claim's records: whose outputs they are.

    Attributes:
        outlet: The handler's.
        unacknowledged: Of its assignment.
        number: Its own, from 1.
        is_running: Whether what is published may be its. A task that the handler has started may outlive it.
    """

    __slots__ = ("_claim", "_failed", "_stored", "is_running", "number", "outlet", "unacknowledged")

    def __init__(self, outlet: Outlet, number: int, claim: Claim | None, stored: StoredRecord | None) -> None:
        self.outlet = outlet
        self.unacknowledged = outlet.unacknowledged
        self.number = number
        self._claim = claim
        self._stored = stored
        self._failed: StoredRecord | None = None
        self.is_running = True

    @property
    def producer(self) -> Producer:
        """Where outputs go."""
        return self.outlet.outputs.producer

    @property
    def record(self) -> StoredRecord:
        """What runs."""
        if self._claim is not None:
            return self._claim.current
        assert self._stored is not None
        return self._stored

    def queue(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish for the record that runs. Raises as `OutputsInFlight.put_awaited`."""
        return self.outlet.outputs.put_awaited(self, self.record, message)

    async def outputs_gone(self) -> None:
        """Wait until the outputs of earlier records are where nothing overtakes them."""
        await self.outlet.outputs.gone()

    def narrow(self, batch: Batch) -> None:
        """Note which records of a batch the handler gets: what it publishes is theirs."""
        self._stored = batch

    def end(self) -> None:
        """Take it that nothing is published for it any more."""
        self.is_running = False

    def fail(self, stored: StoredRecord) -> None:
        """Note that a record's run has failed: what it published belongs to no record any more."""
        self._failed = stored

    def refuse(self, stored: StoredRecord, error: BaseException) -> None:
        """Make a refused output its record's failure, unless its run has failed already."""
        if self._failed is not None and (self._claim is None or self._failed is stored):
            return
        outlet = self.outlet
        refusal = Refusal(outlet, stored, partial(_conclude, outlet, stored, self.number, error))
        offsets = [each.offset for each in stored] if isinstance(stored, Batch) else [settles_at(stored)]
        self.unacknowledged.refuse(refusal, offsets)


def attempt_that_runs() -> Attempt:
    """Return the attempt that the error boundary has begun, and that has not ended."""
    attempt = current_attempt.get()
    assert isinstance(attempt, Attempt), "the error boundary has begun it"
    return attempt


async def _conclude(outlet: Outlet, stored: StoredRecord, attempt: int, error: BaseException) -> Outcome | BatchOutcome:
    current_attempt.set(None)  # what is published from here on is no output of a handler
    if isinstance(error, ConfigurationError):
        refused = ResultRefused(f"handler {outlet.name!r}: {error}")
        refused.__cause__ = error
        error = refused
    return await outlet.conclude(stored, attempt, error)
