"""The callables on the road of a record, from the runner down to the user's function, and what each promises.

    the runner ── RunClaim ──▶ Run ──▶ Handle ──▶ Middleware, Next ──▶ Handle ──▶ Handler
                                │ raised
                                ├──▶ Conclude ──▶ Defer, PublishDeadLetter
                                │ done, and an output was refused later
                                └──▶ ConcludeRefused ──▶ the same

What is total never raises, but for a cancellation from outside and for what stops processing (`HandlerStopped`,
`MemoryError`); then nothing of the record is settled. `attempt` is 1 for the first delivery to a handler.

An outcome may have an error, whose traceback holds the frames that the error went through, and from Python 3.12 on also those
that awaited them. A frame that returns and still has the outcome is held by itself, and with it the record, until a garbage
collection. So code that awaits an outcome on this road and looks at it deletes it when it returns.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from octopus.claim import Claim
from octopus.events import Batch, Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, DeadLetter, Outcome, Retry
from octopus.unacknowledged import Unacknowledged


class BatchOutcome(NamedTuple):
    """What became of each record of a batch. Those that are done, nearly always all, cost nothing.

    Attributes:
        batch: The records.
        others: The outcomes of those that are not done, by their position among the records.
        retry: When those whose outcome is a `Retry` run again; None when there are none.
        apart: Whether they run one by one then, not together.
    """

    batch: Sequence[StoredRecord]
    others: Mapping[int, Outcome] = MappingProxyType({})
    retry: Retry | None = None
    apart: bool = False

    def outcomes(self) -> Iterator[tuple[StoredRecord, Outcome]]:
        """Yield each record with its outcome."""
        for position, stored in enumerate(self.batch):
            yield stored, self.others.get(position, DONE)


RunClaim = Callable[[Claim], Awaitable[Outcome | BatchOutcome]]
"""A claim of one partition to the outcome of the last of its records that was taken. Total.

Ends early at a record that is neither done nor skipped."""

Run = Callable[[StoredRecord, int], Awaitable[Outcome | BatchOutcome]]
"""One record (or `Batch`) of one partition and the attempt to its outcome. Total.

A dead letter is published and acknowledged before it is returned, and so is what waits in a retry topic (`Deferred`)."""

Handle = Callable[[StoredRecord, int], Awaitable[Outcome | BatchOutcome]]
"""The same as `Run` in shape, but it raises what the handler raises: what stands inside of the error boundary.

What the handler returned is on its way when it returns (`pipeline/in_flight.py`), or acknowledged, or in an outbox."""

Conclude = Callable[[StoredRecord, int, BaseException], Awaitable[Outcome]]
"""The error boundary: a record, its attempt and what it raised to its outcome. Raises again what is no failure. Total else."""

ConcludeRefused = Callable[[StoredRecord, int, BaseException], Awaitable[Outcome | BatchOutcome]]
"""The same for a record, or batch, that was done until an output of it was refused."""

Decide = Callable[[StoredRecord, int, Exception], Outcome]
"""The same for one record of a batch that cannot be filtered or decoded; the caller takes the dead letter away."""

Choose = Callable[[StoredRecord], Sequence[int]]
"""A record to the positions of those handlers of a group that want it; raises what asking their filters raises."""

Observe = Callable[[str, Run], Run]
"""A handler's name and what runs its records to the same with an observer, which sees the outcomes and changes none."""

Handler = Callable[..., Any]
"""The user's function, sync or async."""


class PublishDeadLetter(Protocol):
    """Takes dead letters to their topic."""

    async def __call__(self, record: Record, dead_letter: DeadLetter, attempt: int) -> None:
        """Return once the dead letter is acknowledged; raise `HandlerStopped` when there is no place for it."""
        ...


class Defer(Protocol):
    """Takes records whose next attempt is far away to a retry topic."""

    async def __call__(self, record: Record, retry: Retry, attempt: int) -> Outcome:
        """Return `Deferred` once the record is acknowledged there, or the retry itself when there is no place for it."""
        ...


class Next(Protocol):
    """The rest of the chain, as middleware sees it: `outcome = await call_next(record)`.

    Attributes:
        handler: Name of the handler at its end.
        attempt: 1 for the first delivery to it. Of the first record, where several are a batch.
    """

    handler: str
    attempt: int

    def __call__(self, record: Record | Batch, /) -> Awaitable[Outcome]:
        """Go on with this record, or with another one in its place."""
        ...


Middleware = Callable[[Record | Batch, Next], Awaitable[Outcome]]
"""Wraps the handling of a record, or of the whole batch of a batch handler; exceptions of the handler pass through it."""


class Bindable(Protocol):
    """What a runner runs: the road of records, bound to a partition once so that routing is not paid per record."""

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        """Return the compiled road of one partition's records, for one assignment of it.

        Args:
            partition: Which one.
            unacknowledged: What of the assignment waits for acknowledgements.
        """
        ...
