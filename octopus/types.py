"""The signatures everything is made of."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from octopus.events import Batch, Record, StoredRecord, TopicPartition
from octopus.outcomes import Outcome, Retry

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

Total: it never raises, but for cancellation and `HandlerStopped`, which stops the line. A dead letter is published and
acknowledged before it is returned."""

Next = Callable[[Record | Batch], Awaitable[Outcome]]
"""The rest of the chain, as middleware sees it."""

Middleware = Callable[[Record | Batch, Next], Awaitable[Outcome]]
"""Wraps the handling of a record, or of the whole batch of a batch handler; exceptions of the handler pass through it."""


class Application(Protocol):
    """An async callable from record to outcome, bound to a partition once so that routing is not paid per record."""

    def bind(self, partition: TopicPartition) -> Run:
        """Return the compiled path for the records of one partition."""
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
