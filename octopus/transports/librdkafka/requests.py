"""The event loop's requests to the client: kept until the pump's thread has time, and tried again while that helps."""

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException

from octopus.errors import ConnectionFailed
from octopus.transports.librdkafka.errors import GENERATION_CHANGES, error_of, is_passing, ours

RETRY_PAUSE = 0.1
"""Seconds until a request that may yet work is tried again."""

T = TypeVar("T")


class Requests:
    """Made in the event loop, served in the pump's thread.

    Args:
        address: The brokers.
        incremental: Whether partitions stay where they are while the group's generation changes.
        needed: Wakes the thread.
    """

    def __init__(self, address: str, *, incremental: bool, needed: threading.Event) -> None:
        self._address = address
        self._incremental = incremental
        self._needed = needed
        self._lock = threading.Lock()
        self._waiting: list[_Request] = []
        self._in_flight: _Request | None = None  # the one commit that is on its way
        self._sent: set[Any] = set()  # the places that it stores
        self._is_closed = False

    # in the event loop

    async def ask(self, call: Callable[[Consumer], T], doing: str, timeout: float) -> T:
        """Let the thread call the client, again and again until that works or cannot work.

        Raises:
            ConnectionFailed: Not within `timeout` seconds; it may work yet.
        """
        result: T = await self._answer(_Request(call, doing, time.monotonic() + timeout), timeout)
        return result

    async def commit(self, offsets: Callable[[], list[Any]], doing: str, timeout: float) -> None:
        """Commit the result of `offsets` when its turn has come; messages go on coming meanwhile.

        A commit may take as long as a rebalance: librdkafka sends it behind its request to join, which is answered when
        the slowest member has joined. Commits keep their order.
        """

        def at_once(client: Consumer) -> None:
            check_each(client.commit(offsets=offsets(), asynchronous=False))

        await self._answer(_Request(at_once, doing, time.monotonic() + timeout, offsets), timeout)

    async def _answer(self, request: "_Request", timeout: float) -> Any:
        with self._lock:
            self._waiting.append(request)
            if self._is_closed:
                request.answer.cancel()
        self._needed.set()
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(request.answer)
        except TimeoutError:
            raise ConnectionFailed(
                f"Kafka at {self._address} failed while {request.doing}: no success within {timeout:g} s. "
                "Check that the broker runs and that this address reaches it."
            ) from None
        except asyncio.CancelledError:
            if self._is_closed and request.answer.cancelled():
                raise ConnectionFailed(f"The consumer stopped while {request.doing}.") from None
            raise

    # in the thread

    def serve(self, client: Consumer, *, inside_callback: bool) -> None:
        """Make the requests that are due. Inside a callback of the group a commit is waited for: its answer comes by `poll`."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        now, commits_wait = time.monotonic(), self._in_flight is not None
        for request in waiting:
            if request.answer.cancelled():
                continue
            is_commit = request.offsets is not None
            if request.not_before > now or (is_commit and commits_wait):
                commits_wait = commits_wait or is_commit
                self._again(request)
            elif is_commit and not inside_callback:
                commits_wait = True
                self._make(request, lambda request: self._begin_commit(request, client))
            else:
                self._make(request, lambda request: request.succeed(request.call(client)))

    def begin_callback(self, client: Consumer) -> None:
        """Repeat the commit that is on its way: inside a callback its answer does not come, and the listener may wait for it."""
        request, self._in_flight = self._in_flight, None
        if request is not None and not request.answer.cancelled():
            self._make(request, lambda request: request.succeed(request.call(client)))

    def on_commit(self, error: KafkaError | None, places: list[Any]) -> None:
        """Take the answer to a commit; called by librdkafka."""
        if self._in_flight is None or _stored(places) != self._sent:
            return  # it was repeated meanwhile
        request, self._in_flight = self._in_flight, None
        error = error or next((place.error for place in places if place.error is not None), None)
        if error is None:
            request.succeed(None)
        else:
            self._failed(request, error)

    def close(self) -> None:
        """Give up everything that waits."""
        with self._lock:
            self._is_closed = True
            abandoned, self._waiting = self._waiting, []
        for request in [*abandoned, *([self._in_flight] if self._in_flight else [])]:
            request.answer.cancel()

    def _begin_commit(self, request: "_Request", client: Consumer) -> None:
        assert request.offsets is not None
        places = request.offsets()
        client.commit(offsets=places, asynchronous=True)
        self._in_flight, self._sent = request, _stored(places)

    def _make(self, request: "_Request", way: "Callable[[_Request], None]") -> None:
        try:
            way(request)
        except KafkaException as exception:
            self._failed(request, error_of(exception))
        except Exception as error:  # noqa: BLE001 - for the caller
            request.fail(error)

    def _failed(self, request: "_Request", error: KafkaError) -> None:
        again_at = time.monotonic() + RETRY_PAUSE
        # Incremental rebalances leave partitions where they are while the generation changes. A member that is
        # removed instead is told so, and the request finds that its partitions are lost.
        is_between = self._incremental and error.code() in GENERATION_CHANGES
        if (is_passing(error) or is_between) and again_at < request.deadline:
            request.not_before = again_at
            self._again(request, first=True)
        else:
            request.fail(ours(error, request.doing, self._address))

    def _again(self, request: "_Request", *, first: bool = False) -> None:
        with self._lock:
            self._waiting.insert(0 if first else len(self._waiting), request)


class _Request:
    """Something that the thread shall do with the client."""

    __slots__ = ("answer", "call", "deadline", "doing", "not_before", "offsets")

    def __init__(
        self,
        call: Callable[[Consumer], Any],
        doing: str,
        deadline: float,
        offsets: Callable[[], list[Any]] | None = None,
    ) -> None:
        self.answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.call = call
        self.offsets = offsets
        self.doing = doing
        self.deadline = deadline
        self.not_before = 0.0

    def succeed(self, result: Any) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # no caller waits any more
            self.answer.set_result(result)

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.answer.set_exception(error)


def _stored(places: list[Any]) -> set[Any]:
    return {(place.topic, place.partition, place.offset) for place in places}


def check_each(answers: Any) -> None:
    """Raise the first error of single partitions: librdkafka reports success if any of them succeeded."""
    for answer in answers or ():
        if answer.error is not None:
            raise KafkaException(answer.error)
