"""The signatures everything is made of."""

from collections.abc import Awaitable, Callable, Sequence
from operator import length_hint
from typing import Any, NamedTuple, Protocol

from octopus.events import Batch, Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, Outcome, Retry

Handler = Callable[..., Any]
"""The user's function, sync or async."""


class BatchOutcome(NamedTuple):
    """What became of each record of a batch.

    Attributes:
        outcomes: Each record with its outcome.
        retry: When those whose outcome is a `Retry` run again, together; None when there are none.
    """

    outcomes: list[tuple[StoredRecord, Outcome]]
    retry: Retry | None = None


Run = Callable[[StoredRecord, int], Awaitable[Outcome | BatchOutcome]]
"""One record (or `Batch`) of one partition and the attempt, from 1, to its outcome.

Total: it never raises, but for cancellation and `HandlerStopped`, which stops processing. A dead letter is published and
acknowledged before it is returned."""


class Claim:
    """Records that run one after the other without a look at anything else, and how far they are.

    Where they are is read off the iterator, so keeping count costs a record nothing.

    Attributes:
        records: What was claimed.
        cursor: Goes over them; the record it gave last is the one that runs.
        attempt: Of the first; the others are at their first.
        skipped: How many of them the filter dropped; right whenever the one that runs suspends.
        noted: How many are in the ledger already.
    """

    __slots__ = ("attempt", "cursor", "noted", "records", "skipped")

    def __init__(self, records: Sequence[StoredRecord], attempt: int = 1) -> None:
        self.begin(records, attempt)

    def begin(self, records: Sequence[StoredRecord], attempt: int) -> None:
        """Start over with other records."""
        self.records = records
        self.cursor = iter(records)
        self.attempt = attempt
        self.skipped = self.noted = 0

    @property
    def taken(self) -> int:
        """How many have begun; all but the last of them are finished, and the last one may be."""
        return len(self.records) - length_hint(self.cursor)

    @property
    def current(self) -> StoredRecord:
        """The record that runs."""
        records = self.records  # read once: a watchdog may ask from another thread
        return records[min(max(self.taken, 1), len(records)) - 1]

    def attempt_of(self, record: StoredRecord) -> int:
        """Return the attempt that a record of the claim is at."""
        return self.attempt if record is self.records[0] else 1

    def end(self) -> list[StoredRecord]:
        """Let nothing more of it begin; return what has not."""
        begun = self.taken
        left = list(self.cursor)
        self.records = self.records[:begun]
        return left

    def keep_last(self) -> None:
        """Forget those that are finished, after `end`."""
        self.records = self.records[-1:]
        self.noted = self.skipped = 0


RunClaim = Callable[[Claim], Awaitable[Outcome | BatchOutcome]]
"""A claim to the outcome of the last of its records that was taken. Ends early at one that is neither done nor skipped."""


def in_turn(run: Run) -> RunClaim:
    """Run the records of a claim one by one."""

    async def run_claim(claim: Claim) -> Outcome | BatchOutcome:
        outcome: Outcome | BatchOutcome = DONE
        for stored in claim.cursor:
            outcome = await run(stored, claim.attempt_of(stored))
            if outcome is SKIPPED:
                claim.skipped += 1
            elif outcome is not DONE:
                break
        return outcome

    return run_claim


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
    """An async callable from record to outcome, bound to a partition once so that routing is not paid per record."""

    def bind(self, partition: TopicPartition) -> "RunClaim":
        """Return the compiled path for the records of one partition; `stretched` makes one of a `Run`."""
        ...


class Codec(Protocol):
    """Turns bytes into values and back.

    Attributes:
        content_type: The MIME type that announces it in the `content-type` header.
    """

    content_type: str

    def decoder(self, annotation: Any) -> Callable[[bytes], Any]:
        """Return a function from bytes to a value of the annotated type.

        Whatever it raises becomes a `DecodeError`, but for `TransportError`: a schema registry that is away is no
        reason to give up on a record.
        """
        ...

    def encode(self, value: Any) -> bytes:
        """Return the bytes of a value."""
        ...


class TokenProvider(Protocol):
    """Gives a currently valid bearer token and knows when it ends."""

    async def token(self) -> str:
        """Return a token that is valid now. Raises `AuthError`."""
        ...
