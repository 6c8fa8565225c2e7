"""The outcomes of a record. Closed: done, skipped, retry, deferred, dead letter; there are no others.

A handler says no by raising `RetryLater` or `Reject`: answers, not failures, so they stand beside the error tree.
"""

from typing import Final

import msgspec

from octopus.arguments import LONGEST, is_number


class Done(msgspec.Struct, frozen=True):
    """The handler finished. The record settles when what it returned is acknowledged."""


class Skipped(msgspec.Struct, frozen=True):
    """The filter did not match."""


class Retry(msgspec.Struct, frozen=True):
    """Run it again, not before `after` seconds from now. The record stays unsettled.

    Attributes:
        after: Seconds to wait.
        error: Why, or None when the handler asked for it.
        counted: Whether the attempt that ends here counts against the retry policy.
        begun: Whether an attempt began at all; not so while a deferred record waits for its time.
    """

    after: float
    error: BaseException | None = None
    counted: bool = True
    begun: bool = True


class Deferred(msgspec.Struct, frozen=True):
    """It waits in the retry topic. Its copy there is acknowledged before this outcome is returned, so it is settled here.

    Attributes:
        retry: The retry that waits there.
    """

    retry: Retry


class DeadLetter(msgspec.Struct, frozen=True):
    """Give up on the record. Its copy in the dead-letter topic is acknowledged before this outcome is returned.

    Attributes:
        reason: One sentence.
        error: The exception behind it, if any.
        rejected: The handler itself refused the event; that is a decision, not a failure.
    """

    reason: str
    error: BaseException | None = None
    rejected: bool = False


Outcome = Done | Skipped | Retry | Deferred | DeadLetter

OUTCOMES: Final = frozenset((Done, Skipped, Retry, Deferred, DeadLetter))

DONE: Final = Done()
SKIPPED: Final = Skipped()


class RetryLater(Exception):
    """Raised by a handler: not now, come again after `after` seconds. Does not count against the retry policy.

    Args:
        after: Seconds to wait.

    Raises:
        ValueError: That is no time.
    """

    def __init__(self, after: float) -> None:
        if not is_number(after, -LONGEST, LONGEST):
            raise ValueError(f"RetryLater({after!r}): give the seconds to wait, such as RetryLater(30).")
        super().__init__(f"retry in {after:g} s")
        self.after = after


class Reject(Exception):
    """Raised by a handler: this event shall not be processed; dead-letter it with this reason, without retrying.

    Args:
        reason: One sentence, kept in the dead-letter headers.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
