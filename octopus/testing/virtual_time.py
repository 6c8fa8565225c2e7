"""A clock that jumps: when nothing is ready to run, it is the time of the next timer.

Hours of back-off pass in a millisecond, and always in the same order. What really takes time keeps its time: while a
thread works for the loop the clock runs in step with the wall, so a jump never overtakes it; and while sockets are open
the loop listens for `GRACE` seconds before it jumps.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread

from octopus.errors import ConfigurationError

GRACE = 0.05
"""Real seconds that open sockets get before a jump."""


class VirtualTime:
    """The clock of a loop.

    Args:
        now: What `loop.time()` says at first, seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._in_executor = 0
        self._occupied: list[Callable[[], bool]] = []

    def time(self) -> float:
        """Return seconds since some beginning; replaces `loop.time`."""
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def hold_while(self, occupied: Callable[[], bool]) -> None:
        """Do not jump while `occupied()`: a thread works outside of the loop and will come back to it."""
        self._occupied.append(occupied)

    @property
    def is_held(self) -> bool:
        """Whether a thread works outside of the loop."""
        return bool(self._in_executor or _anyio_threads() or any(occupied() for occupied in self._occupied))

    @contextmanager
    def installed(self, loop: asyncio.AbstractEventLoop) -> Iterator["VirtualTime"]:
        """Give a loop that already exists this clock, until the block ends.

        Raises:
            ConfigurationError: It is not one of asyncio's own selector loops (uvloop keeps its own time).
        """
        if not isinstance(loop, asyncio.SelectorEventLoop):
            raise ConfigurationError(
                f"Virtual time needs asyncio's own selector loop, not {type(loop).__module__}.{type(loop).__qualname__}. "
                "Let the test run without uvloop, or use `with TestClient(app) as client:` in a test that is not async."
            )
        own: Any = loop
        selector, submit, shut_down = own._selector, loop.run_in_executor, loop.shutdown_default_executor

        def run_in_executor(executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
            future: asyncio.Future[Any] = submit(executor, function, *args)
            self._in_executor += 1
            future.add_done_callback(self._came_back)
            return future

        async def shutdown_default_executor(*args: Any, **options: Any) -> None:
            self._in_executor += 1  # a thread joins the others, and may be given limited time for it
            try:
                await shut_down(*args, **options)
            finally:
                self._in_executor -= 1

        own._selector = VirtualSelector(selector, self)
        own.time, own.run_in_executor = self.time, run_in_executor
        own.shutdown_default_executor = shutdown_default_executor
        try:
            yield self
        finally:
            del own.time, own.run_in_executor, own.shutdown_default_executor
            own._selector = selector

    def _came_back(self, _future: object) -> None:
        self._in_executor -= 1


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, beginning at 0.

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    Attributes:
        virtual_time: Its clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.virtual_time = VirtualTime()
        self._installed = self.virtual_time.installed(self)
        self._installed.__enter__()

    def close(self) -> None:
        """Close the loop; its clock is the real one again."""
        if not self.is_closed():
            self._installed.__exit__(None, None, None)
        super().close()


class VirtualSelector(selectors.BaseSelector):
    """Waits for sockets like the selector it wraps, and for time not at all.

    Args:
        selector: The loop's own.
        clock: What jumps instead.
    """

    def __init__(self, selector: selectors.BaseSelector, clock: VirtualTime) -> None:
        self._selector = selector
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; with nothing ready, let `timeout` seconds pass at once."""
        ready = self._selector.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._clock.is_held:
            began = time.monotonic()
            ready = self._selector.select(timeout)
            elapsed = time.monotonic() - began
            self._clock.pass_by(elapsed if timeout is None else min(elapsed, timeout))
            return ready
        if timeout is None:
            return self._selector.select(None)
        if len(self._selector.get_map()) > 1:  # one is the loop's own way to be woken by threads
            ready = self._selector.select(min(timeout, GRACE))
        if not ready:
            self._clock.pass_by(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors.BaseSelector`."""
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """See `selectors.BaseSelector`."""
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """See `selectors.BaseSelector`."""
        return self._selector.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """See `selectors.BaseSelector`."""
        return self._selector.get_map()

    def close(self) -> None:
        """See `selectors.BaseSelector`."""
        self._selector.close()


def _anyio_threads() -> int:
    try:
        return int(anyio.to_thread.current_default_thread_limiter().borrowed_tokens)
    except anyio.NoEventLoopError:
        return 0
