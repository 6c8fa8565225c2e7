"""What a publisher says in the log while no broker can be reached: a worker says it of itself, in words of its own."""

import time

from octopus.logs import get_logger

logger = get_logger("octopus.transports")


class Outage:
    """Says once that an outage began, and once that it has ended.

    Args:
        where: The brokers.
        patience: Seconds for which what is published waits for one.
    """

    def __init__(self, where: str, patience: float) -> None:
        self._where = where
        self._patience = patience
        self._since: float | None = None

    def note(self, failure: BaseException | None) -> None:
        """Take it that no broker could be reached, and why; or, with None, that one has answered."""
        if failure is None and self._since is not None:
            away, self._since = time.monotonic() - self._since, None
            logger.warning("%s answers again, after %.1f s", self._where, away)
        elif failure is not None and self._since is None:
            self._since = time.monotonic()
            logger.warning(
                "%s does not answer: %s. Events that are published wait for it, for up to %g s, and then fail.",
                self._where,
                str(failure).rstrip("."),
                self._patience,
            )
