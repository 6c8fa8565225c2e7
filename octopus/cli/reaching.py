"""Ways to a broker for as long as a block lasts, and how a verb's coroutine is run."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from octopus.cli.logs import configure_logs
from octopus.cli.options import Options
from octopus.cli.screen import notices
from octopus.config import LogSettings, Settings
from octopus.transports.base import Transport
from octopus.transports.opening import connected

T = TypeVar("T")

CLIENT = "octopus-cli"
"""What broker logs call the command line."""


def run_async(options: Options, work: Coroutine[Any, Any, T]) -> T:
    """Run a verb. SIGTERM ends it as Ctrl-C does: through its `finally` blocks, then KeyboardInterrupt.

    Args:
        options: Of the command line: how much is logged.
        work: What to do.
    """
    if not logging.getLogger().handlers:
        # A verb's result is its message, so only what is wrong is logged beside it.
        configure_logs(LogSettings(level="debug" if options.verbose else "warning"), notices())

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        terminated = False

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        loop.add_signal_handler(signal.SIGTERM, terminate)
        try:
            return await work
        except asyncio.CancelledError:
            if terminated:
                raise KeyboardInterrupt from None
            raise
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    return asyncio.run(main())


def reaching(settings: Settings) -> contextlib.AbstractAsyncContextManager[Transport]:
    """Open the transport of the settings."""
    return connected(settings, client_id=CLIENT)
