"""Group commit: one fsync of a file serves all requests that wait for it."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from octopus.broker.codes import BrokerError, Code


class Durable(Protocol):
    """Something appended to in one thread and made durable in another."""

    def begin_sync(self) -> Callable[[], None]:
        """Return the work, for any thread, that makes durable all that was appended so far."""

    def end_sync(self, error: Exception | None) -> None:
        """Record the work's result; on an error, take back the appends that may not be durable."""


class GroupCommit:
    """Runs the syncs of many `Durable` items, at most one at a time each.

    While an item's sync runs, appends to it gather; the next sync covers all of them. So the number of fsyncs follows
    the disk's speed, not the number of appends.
    """

    def __init__(self) -> None:
        self._dirty: dict[Durable, list[asyncio.Future[None]]] = {}
        self._running: dict[Durable, tuple[Future[None], list[asyncio.Future[None]]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def mark(self, item: Durable) -> None:
        """Note that `item` was appended to. In an event loop its sync starts by itself, soon."""
        if item in self._dirty:
            return
        self._dirty[item] = []
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_soon(self._start, item)

    async def synced(self, items: Iterable[Durable]) -> None:
        """Return when everything appended to `items` so far is durable.

        Raises:
            BrokerError: 56, when for one of them it is not.
        """
        loop = asyncio.get_running_loop()
        waiting = []
        for item in items:
            if item in self._dirty:
                waiters = self._dirty[item]
                loop.call_soon(self._start, item)  # it may have been marked outside of the loop
            elif item in self._running:
                waiters = self._running[item][1]
            else:
                continue
            waiting.append(loop.create_future())
            waiters.append(waiting[-1])
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    def flush(self, item: Durable) -> None:
        """Make `item` durable before returning.

        Raises:
            BrokerError: 56, when it is not.
        """
        if item in self._running:
            self._finish(item, self._running[item][0])
        if item in self._dirty:
            waiters = self._dirty.pop(item)
            done: Future[None] = Future()
            try:
                item.begin_sync()()
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 (judged by the item)
                done.set_exception(error)
            self._running[item] = done, waiters
            self._finish(item, done)
            if error_of(done):
                raise _refused(error_of(done))

    def forget(self, item: Durable) -> None:
        """Stop caring for an item that is being deleted."""
        if item in self._running:
            self._finish(item, self._running[item][0])
        for waiter in self._dirty.pop(item, []):
            _answer(waiter, BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION))

    def close(self) -> None:
        """Make everything durable and end the threads.

        Raises:
            BrokerError: 56, when something is not; the rest is.
        """
        failure: BrokerError | None = None
        for item in [*self._running, *self._dirty]:
            try:
                self.flush(item)
            except BrokerError as error:
                failure = error
        if self._threads is not None:
            self._threads.shutdown()
        if failure is not None:
            raise failure

    def _start(self, item: Durable) -> None:
        if item in self._running or item not in self._dirty:
            return
        loop = asyncio.get_running_loop()
        waiters = self._dirty.pop(item)
        if self._threads is None:
            # A few, so that the file system can join the syncs of several files into one commit of its journal.
            self._threads = ThreadPoolExecutor(4, thread_name_prefix="octopus-broker-sync")
        done = self._threads.submit(item.begin_sync())
        self._running[item] = done, waiters

        def finished(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed: `close` has finished, or will finish, the item
                loop.call_soon_threadsafe(self._finished, item, done)

        done.add_done_callback(finished)

    def _finished(self, item: Durable, done: Future[None]) -> None:
        if item in self._running and self._running[item][0] is done:
            self._finish(item, done)

    def _finish(self, item: Durable, done: Future[None]) -> None:
        error = error_of(done)
        _, waiters = self._running.pop(item)
        item.end_sync(error)
        if error is not None:
            waiters = waiters + self._dirty.pop(item, [])  # taken back with the rest
        for waiter in waiters:
            _answer(waiter, None if error is None else _refused(error))
        if item in self._dirty:
            with suppress(RuntimeError):
                asyncio.get_running_loop().call_soon(self._start, item)


def error_of(done: Future[None]) -> Exception | None:
    """Wait for the work and return its error."""
    error = done.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error


def _refused(error: Exception | None) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")


def _answer(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
