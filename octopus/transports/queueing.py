"""Futures of `Producer.queue`: for those who have the answer at once, who must ask others first, and who ask several."""

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Protocol

from octopus.errors import OctopusError, TransportError
from octopus.events import Published
from octopus.transports.base import Outgoing, Producer

Queued = asyncio.Future[list[Published]]
Queue = Callable[[Sequence[Outgoing]], Queued]

_TOPIC, _VALUE, _KEY = attrgetter("topic"), attrgetter("value"), attrgetter("key")


class Call:
    """Messages that were queued together.

    Args:
        messages: In the order in which they are to be stored, per partition.
        future: Gets where they were stored, or the error.
        failed: Gets the call instead, with its error, when messages are not stored.
        is_single: Whether the future gets one `Published` instead of a list.

    Attributes:
        word: The future by which its caller hears of a failure: its own, or that of the messages it is a part of.
        start: Index of the first of them in their round.
        open: Batches that have some of them and are not settled; and one more while they are being packed.
        error: The first error.
        number: Its place in the order of calls for its topic.
        mended: The kinds of refusals whose causes were mended, one for each time.
        whole: The messages of the first attempt.
        earlier: Where earlier attempts have stored these; None for what this one has.
    """

    __slots__ = (
        "earlier",
        "error",
        "failed",
        "future",
        "is_single",
        "mended",
        "messages",
        "number",
        "open",
        "size_bytes",
        "start",
        "whole",
        "word",
    )

    def __init__(
        self,
        messages: Sequence[Outgoing],
        future: "asyncio.Future[Any]",
        failed: "Callable[[Call, BaseException], None] | None" = None,
        is_single: bool = False,
    ) -> None:
        self.messages = self.whole = messages
        self.future = self.word = future
        self.failed = failed
        self.is_single = is_single
        self.size_bytes = size_of(messages)
        self.start = self.number = 0
        self.mended: tuple[type[TransportError], ...] = ()
        self.open = 1
        self.error: Exception | None = None
        self.earlier: Sequence[Published | None] | None = None

    def topics(self) -> set[str]:
        """Return the topics of its messages."""
        return set(map(_TOPIC, self.messages))

    def finish(self, published: "Sequence[Published | None]") -> None:
        """Tell where the messages were stored, or pass the error on."""
        if self.earlier is not None:
            now = iter(published)
            published = [next(now) if stored is None else stored for stored in self.earlier]
        if self.error is None:
            if not self.future.done():
                self.future.set_result(published[0] if self.is_single else published)
            return
        error = of_these(self.error, published)
        if self.failed is not None:
            self.failed(self, error)
        else:
            fail(self.future, error)

    def again(self, error: TransportError) -> "Call":
        """Return a call of what was not stored, with the same future."""
        published = error.published or [None] * len(self.whole)
        missing = [message for message, stored in zip(self.whole, published, strict=True) if stored is None]
        again = Call(missing, self.future, self.failed, self.is_single)
        again.whole, again.earlier, again.number, again.word = self.whole, published, self.number, self.word
        again.mended = (*self.mended, type(error))
        return again

    def refusals(self, error: TransportError) -> int:
        """Return how often the messages have been refused for this, from 1."""
        return self.mended.count(type(error)) + 1


class CallProducer(Producer, Protocol):
    """The producer of a transport, which `TopicCreatingProducer` can have send again what was refused."""

    def queue_call(self, call: Call) -> None:
        """Queue a call, as `queue`."""
        ...

    async def answered(self, topic: str) -> None:
        """Wait until every call for a topic is finished that was queued."""
        ...


def answered(store: Callable[[], list[Published]]) -> Queued:
    """Store messages now; return a future that is done."""
    future: Queued = asyncio.get_running_loop().create_future()
    try:
        future.set_result(store())
    except Exception as error:  # noqa: BLE001 - the future has it
        fail(future, error)
    return future


def fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    """Give a future an error, without a complaint of asyncio's when it is never asked for."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def of_these(error: BaseException, published: "Sequence[Published | None]") -> BaseException:
    """Return an error that says which messages of one call were stored; several calls may have it in common."""
    if not isinstance(error, OctopusError):
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.published = published
    return own


def follow(future: Queued, first: Queued) -> None:
    """Let a future become what another becomes."""

    def done(first: Queued) -> None:
        if first.cancelled():
            future.cancel()
        elif (error := first.exception()) is not None:
            fail(future, error)
        elif not future.done():
            future.set_result(first.result())

    first.add_done_callback(done)


def first_of(queued: Queued) -> "asyncio.Future[Published]":
    """Return the future of the only message of a call."""
    future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()

    def done(queued: Queued) -> None:
        if future.done():
            return
        if queued.cancelled():
            future.cancel()
        elif (error := queued.exception()) is not None:
            future.set_exception(error)
            future.exception()
        else:
            future.set_result(queued.result()[0])

    if queued.done():
        done(queued)
    else:
        queued.add_done_callback(done)
    return future


class Joined:
    """One future for messages that were queued in parts.

    Args:
        count: How many messages there are.

    Attributes:
        future: Done when all parts are.
    """

    def __init__(self, count: int) -> None:
        self.future: Queued = asyncio.get_running_loop().create_future()
        self._published: list[Published | None] = [None] * count
        self._error: BaseException | None = None
        self._open = 0
        if not count:
            self.future.set_result([])

    def add(self, indexes: Sequence[int], part: Queued) -> None:
        """Add a part: which of the messages are in it, and its future."""
        self._open += 1
        part.add_done_callback(lambda part: self._done(indexes, part))

    def _done(self, indexes: Sequence[int], part: Queued) -> None:
        error = asyncio.CancelledError() if part.cancelled() else part.exception()
        stored = part.result() if error is None else getattr(error, "published", None) or [None] * len(indexes)
        for index, published in zip(indexes, stored, strict=True):
            self._published[index] = published
        self._error = self._error or error
        self._open -= 1
        if self._open or self.future.done():
            return
        if self._error is not None:
            fail(self.future, of_these(self._error, self._published))
        else:
            self.future.set_result(self._published)  # type: ignore[arg-type]


class Unheard:
    """A failure of which some callers, whose messages have failed, have not heard yet.

    Who sends what has failed again, in order, and nothing newer before that, is overtaken by nothing: what is queued before the
    word has arrived fails, too.

    Attributes:
        error: The failure; None when all have had word of it.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._futures: set[asyncio.Future[Any]] = set()

    def note(self, error: BaseException, futures: "Iterable[asyncio.Future[Any]]") -> None:
        """Note a failure, and the futures by which callers hear of it: these have it by now, or get it later."""
        for future in futures:
            self.error = error
            if future not in self._futures:
                self._futures.add(future)
                future.add_done_callback(self._is_told)

    def _is_told(self, future: "asyncio.Future[Any]") -> None:
        asyncio.get_running_loop().call_soon(self._is_heard, future)  # the callbacks of others run before

    def _is_heard(self, future: "asyncio.Future[Any]") -> None:
        self._futures.discard(future)
        if not self._futures:
            self.error = None


class Backlog:
    """Messages that cannot be queued yet, in order."""

    def __init__(self) -> None:
        self._calls: list[tuple[Sequence[Outgoing], Queued]] = []
        self._unheard = Unheard()

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def size_bytes(self) -> int:
        """Bytes of their keys and values."""
        return sum(size_of(messages) for messages, _ in self._calls)

    def add(self, messages: Sequence[Outgoing]) -> Queued:
        """Keep messages; return what their future will be. They fail at once while callers have not heard of a failure before them."""
        future: Queued = asyncio.get_running_loop().create_future()
        if self._unheard.error is not None:
            fail(future, of_these(self._unheard.error, [None] * len(messages)))
        else:
            self._calls.append((messages, future))
        return future

    def pass_on(self, queue: Queue) -> None:
        """Queue all of them."""
        calls, self._calls = self._calls, []
        for messages, future in calls:
            follow(future, queue(messages))

    def fail(self, error: BaseException) -> None:
        """Give all of them up."""
        calls, self._calls = self._calls, []
        for messages, future in calls:
            fail(future, of_these(error, [None] * len(messages)))
        self._unheard.note(error, [future for _, future in calls])


def size_of(messages: Sequence[Outgoing]) -> int:
    """Return the bytes of keys and values."""
    if len(messages) == 1:
        value, key = messages[0].value, messages[0].key
        return (len(value) if value else 0) + (len(key) if key else 0)
    keys = sum(map(len, filter(None, map(_KEY, messages))))
    return keys + sum(map(len, filter(None, map(_VALUE, messages))))
