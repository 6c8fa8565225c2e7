"""How a group's commits fare. A commit that fails is repeated, so it is news only if that goes on and nothing explains it."""

from octopus.errors import TransportError
from octopus.logs import get_logger
from octopus.worker.outlook import ANSWER_TIME, ASK_EVERY, Outlook

logger = get_logger("octopus.worker")

SAY_AFTER = ASK_EVERY + ANSWER_TIME + 1.0
"""Seconds of failing after which it is said: an outage of the broker is noticed before, and explains it."""


class CommitHealth:
    """When commits were last right, and what they fail with. Time comes as an argument.

    Args:
        group: Begins the sentences.
        now: When it begins.

    Attributes:
        error: What the last one failed with, if it did.
        at: When the committed offsets were last right.
    """

    def __init__(self, group: str, now: float) -> None:
        self.error: TransportError | None = None
        self.at = now
        self._group = group
        self._failing_since: float | None = None
        self._is_said = False

    def fail(self, error: TransportError | TimeoutError, outlook: Outlook, now: float) -> TransportError:
        """Take it that one failed, and return what with; it will be repeated."""
        self.error = error if isinstance(error, TransportError) else TransportError("commit timed out", retryable=True)
        self._failing_since = now if self._failing_since is None else self._failing_since
        if not self._is_said and outlook.trouble is None and now - self._failing_since >= SAY_AFTER:
            self._is_said = True
            logger.warning("%s: commits fail and are repeated: %s", self._group, self.error)
        return self.error

    def succeed(self, now: float) -> None:
        """Take it that the committed offsets are right."""
        if self._is_said:
            logger.warning("%s commits again, after %.1f s", self._group, now - self.at)
        self.at, self.error = now, None
        self._failing_since, self._is_said = None, False
