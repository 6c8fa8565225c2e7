"""Waiting for something that is away, said once."""

import logging
import time

from octopus.errors import TransportError


class Patience:
    """Says once that something is waited for and once when that is over, however many wait and however often they try.

    Args:
        logger: Where.
        who: Begins the sentences: `app.store`.
        what: What waits: `dead letters`.
    """

    def __init__(self, logger: logging.Logger, who: str, what: str) -> None:
        self._logger = logger
        self._who = who
        self._what = what
        self._since: float | None = None

    def failed(self, error: TransportError) -> None:
        """Take it that an attempt failed."""
        if self._since is None:
            self._since = time.monotonic()
            self._logger.warning("%s: %s wait to be published: %s", self._who, self._what, error)
        else:
            self._logger.debug("%s: %s still wait: %s", self._who, self._what, error)

    def succeeded(self) -> None:
        """Take it that an attempt succeeded."""
        if self._since is not None:
            waited, self._since = time.monotonic() - self._since, None
            self._logger.info("%s: %s are published again, after %.1f s", self._who, self._what, waited)
