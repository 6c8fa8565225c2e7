"""A worker's own connection for questions, beside those of its groups."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from octopus.transports.base import Admin, Transport


class AdminConnection:
    """An admin client that connects when it is first asked; one that did not bring an answer is not used again.

    Args:
        transport: Where.
        answer_time: Seconds for connecting and for an answer.
    """

    def __init__(self, transport: Transport, answer_time: float) -> None:
        self._transport = transport
        self._answer_time = answer_time
        self._admin: Admin | None = None

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Admin]:
        """Connect, if that is needed, and ask.

        Raises:
            OctopusError: The broker cannot be reached, or refuses.
            TimeoutError: It does not answer in time.
        """
        try:
            async with asyncio.timeout(self._answer_time):
                if self._admin is None:
                    admin = self._transport.admin()
                    await admin.start()
                    self._admin = admin
                yield self._admin
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; the next question connects again."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.stop()
