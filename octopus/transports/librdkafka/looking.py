"""Answers for librdkafka's callbacks, looked up in an event loop."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from typing import Any


class Looking:
    """Looks once at a time, however often callbacks ask for it."""

    def __init__(self) -> None:
        self._running: concurrent.futures.Future[None] | None = None

    def begin(
        self, look: Callable[[], Coroutine[Any, Any, None]], home: asyncio.AbstractEventLoop
    ) -> concurrent.futures.Future[None]:
        """Look in that loop, unless a look is under way; return a future that is done when it ends. Called from any thread."""
        if self._running is None or self._running.done():
            self._running = asyncio.run_coroutine_threadsafe(look(), home)
        return self._running

    def close(self) -> None:
        """Look no more."""
        if self._running is not None:
            self._running.cancel()
