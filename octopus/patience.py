"""Waiting for a broker, or a topic, that is away: one loop, logged once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from octopus.errors import TransportError

M = TypeVar("M")

WAITS: Final = (0.1, 5.0)
"""Seconds between the first two attempts, doubled from one to the next, and at most."""


class Patience:
    """Keeps sending while a broker is away; logs once that it waits and once that it no longer does.

    However many wait, and however often they try, the log has two lines.

    Args:
        logger: Where.
        who: Begins the sentences: `app.store`.
        what: What waits: `dead letters`.
        waits: Seconds between the first two attempts, and at most.
    """

    def __init__(self, logger: logging.Logger, who: str, what: str, waits: tuple[float, float] = WAITS) -> None:
        self._logger = logger
        self._who = who
        self._what = what
        self._waits = waits
        self._since: float | None = None

    async def until_sent(self, send: Callable[[], Awaitable[Any]], failed: TransportError | None = None) -> None:
        """Send until it is acknowledged.

        Args:
            send: Makes one attempt.
            failed: The error of a first attempt, if one was made already.

        Raises:
            TransportError: An attempt failed for good: the error is not retryable.
        """
        wait, longest = self._waits
        while True:
            if failed is not None:
                self.failed(failed)
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
            try:
                await send()
            except TransportError as error:
                if not error.retryable:
                    raise
                failed = error
            else:
                self.succeeded()
                return

    async def until_all_sent(
        self,
        send: Callable[[Sequence[M]], Awaitable[Any]],
        messages: Sequence[M],
        failed: TransportError | None = None,
    ) -> None:
        """Send messages until all are acknowledged, and none of them again that is. Arguments and errors as `until_sent`."""
        left = messages if failed is None else _unsent(messages, failed)

        async def send_left() -> None:
            nonlocal left
            try:
                await send(left)
            except TransportError as error:
                left = _unsent(left, error)
                raise

        await self.until_sent(send_left, failed)

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
            self._logger.warning("%s: %s are published again, after %.1f s", self._who, self._what, waited)


def _unsent(messages: Sequence[M], error: TransportError) -> Sequence[M]:
    if error.published is None:
        return messages
    return [message for message, stored in zip(messages, error.published, strict=True) if stored is None]
