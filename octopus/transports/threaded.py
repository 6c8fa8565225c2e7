"""A consumer in a thread and event loop of its own, so that heartbeats go on while a handler blocks the caller's loop."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from octopus.errors import ConnectionFailed
from octopus.events import TopicPartition
from octopus.transports.base import MAX_BYTES, NO_IDS, AssignmentListener, Commit, Consumer, Fetched, Start

T = TypeVar("T")


class ThreadedConsumer:
    """Forwards everything to a consumer that lives elsewhere; its listener is called in the caller's loop.

    Args:
        make: Makes the consumer; called in its thread.
    """

    def __init__(self, make: Callable[[], Consumer]) -> None:
        self._make = make
        self._consumer: Consumer | None = None
        self._fetching: Parcel | None = None
        self._thread: threading.Thread | None = None

    async def start(self, listener: AssignmentListener) -> None:
        """Start the thread, connect and take part in the group."""
        home = asyncio.get_running_loop()
        self._loop = new_loop(home)
        self._thread = threading.Thread(target=self._loop.run_forever, name="octopus consumer", daemon=True)
        self._thread.start()

        async def start() -> None:
            self._consumer = self._make()
            await self._consumer.start(_Listener(listener, home))

        try:
            await self._there(start())
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the group and end the thread; harmless when it has not started or has ended."""
        consumer, self._consumer = self._consumer, None
        try:
            if consumer is not None:
                await self._there(consumer.stop())
        finally:
            await self._end_thread()

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        *,
        max_records: int,
        timeout: float,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        """Fetch; a cancelled call leaves its result to the next one."""
        if self._fetching is None:
            # A copy: the caller's set changes under its own loop while ours iterates.
            wanted = frozenset(partitions)
            work = self._started.fetch(wanted, max_records=max_records, timeout=timeout, max_bytes=max_bytes)
            self._fetching = Parcel(asyncio.get_running_loop())
            self._loop.call_soon_threadsafe(self._begin, work, self._fetching)
        parcel = self._fetching
        await parcel.wait()
        self._fetching = None
        return parcel.contents

    def _begin(self, work: Coroutine[Any, Any, list[Fetched]], parcel: "Parcel") -> None:
        self._task = self._loop.create_task(parcel.fill(work))

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Store offsets."""
        await self._there(self._started.commit(offsets))

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit | None]:
        """Return committed offsets."""
        return await self._there(self._started.committed(frozenset(partitions)))

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Ask which topics these names stand for now."""
        return await self._there(self._started.topic_ids(frozenset(topics)))

    async def seek(self, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> None:
        """Set positions."""
        await self._there(self._started.seek(offsets, topic_ids))

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start to offsets."""
        return await self._there(self._started.offsets(frozenset(partitions), start))

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the partition's end as last heard; a plain read, safe across threads."""
        return self._started.end_offset(partition)

    def known_partitions(self) -> set[TopicPartition]:
        """Return every partition the last metadata listed."""
        return self._started.known_partitions()

    @property
    def _started(self) -> Consumer:
        if self._consumer is None:
            raise ConnectionFailed("The consumer is not running.")
        return self._consumer

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _end_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        asyncio.run_coroutine_threadsafe(end_loop(), self._loop)
        await asyncio.to_thread(thread.join)
        self._loop.close()
        if self._fetching is not None:
            self._fetching.arrive([], ConnectionFailed("The consumer has stopped."))


class Parcel:
    """A fetch's result on its way between loops. Each step in between, a task or a future, is one more turn of a loop,
    which is the latency of an event that comes alone (`scripts/bench latency:idle`).

    Args:
        home: Where it is waited for.
    """

    def __init__(self, home: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._waiter: asyncio.Future[None] | None = None
        self._contents: list[Fetched] | None = None
        self._error: BaseException | None = None

    async def fill(self, work: Coroutine[Any, Any, list[Fetched]]) -> None:
        """Run the fetch there, and send its result home."""
        contents: list[Fetched] = []
        error: BaseException | None = ConnectionFailed("The consumer has stopped.")  # as when this is cancelled
        try:
            contents = await work
            error = None
        except Exception as raised:  # noqa: BLE001 - raised again at home
            error = raised
        finally:
            self._send_home(contents, error)

    def _send_home(self, contents: list[Fetched], error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # home is closed
            self._home.call_soon_threadsafe(self.arrive, contents, error)
        time.sleep(0)  # home has the interpreter now, not only when the next request is on its way

    def arrive(self, contents: list[Fetched], error: BaseException | None) -> None:
        """Arrive at home; only the first time counts."""
        if self._contents is None:
            self._contents, self._error = contents, error
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for it at home. Cancelling that loses nothing: it can be waited for again."""
        if self._contents is None:
            self._waiter = self._home.create_future()
            await self._waiter

    @property
    def contents(self) -> list[Fetched]:
        """The fetched records; raises the fetch's error."""
        if self._error is not None:
            raise self._error
        return self._contents or []


def new_loop(home: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Make a loop for another thread: of uvloop where the caller's is, so that an event that comes alone comes home sooner.

    Others, of a graphical interface for example, belong to their thread; then it is asyncio's own.
    """
    kind = type(home)
    return kind() if kind.__module__.partition(".")[0] == "uvloop" else asyncio.new_event_loop()


async def end_loop() -> None:
    """Stop the running loop once everything in it has ended, so that no caller waits for an answer that never comes."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=1.0)
    asyncio.get_running_loop().stop()


class _Listener:
    """Brings the group's decisions home: the consumer waits until the caller's loop has acted on them."""

    def __init__(self, listener: AssignmentListener, home: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._home = home

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        await self._here(self._listener.assigned(partitions))

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        await self._here(self._listener.revoked(partitions))

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        await self._here(self._listener.lost(partitions))

    async def _here(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._home))
