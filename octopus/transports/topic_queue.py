"""The messages for one topic on their way through a producer: in order, also while the topic is made, or made again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Any

from octopus.errors import RecordTooLarge, TopicNotFound, TransportError
from octopus.transports.base import Outgoing
from octopus.transports.queueing import Call, CallProducer, Unheard, fail, of_these, size_of

MENDS = 6
"""How often one message is sent again after the cause of its refusal was mended, for each kind of refusal."""

Mend = Callable[[TransportError, Sequence[Outgoing], int], Awaitable[bool]]
"""Does something about what a broker refused, and tells whether the same messages may be taken now; see `TopicCreatingProducer`."""

_NUMBER = attrgetter("number")


class TopicQueue:
    """Passes messages on, and sends those again whose refusal could be mended.

    As soon as one of them is refused because the topic is missing, what comes later waits. When all that was passed on is answered
    and the topic is there again, everything goes on in the order in which it came. A message that is too large holds up
    nothing: it is sent again behind what has passed it.

    Who queued what has failed may send it again, and nothing is to overtake it then: all that is held up behind it fails with it, and
    so does what is queued before they have had word of the failure.

    Args:
        topic: Its name.
        producer: What messages are passed on to; it costs them nothing more.
        ensure: Makes the topic.
        mend: Mends the cause of a refusal; tells whether it could.
        is_known: Tells whether the topic is known to be there.
    """

    def __init__(
        self,
        topic: str,
        producer: CallProducer,
        *,
        ensure: Callable[[Sequence[Outgoing]], Awaitable[None]],
        mend: Mend,
        is_known: Callable[[], bool],
    ) -> None:
        self._topic = topic
        self._producer = producer
        self._ensure = ensure
        self._mend = mend
        self._is_known = is_known
        self._held: list[Call] = []  # each of them came, or was refused, since the topic is missing
        self._numbers = 0
        self._unheard = Unheard()
        self._behind = range(0)  # numbers of what was passed on behind the last failure
        self._failure: TransportError | None = None
        self._holding: asyncio.Task[None] | None = None
        self._mending: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """Bytes of the keys and values that wait here."""
        return sum(size_of(_missing(call)) for call in self._held)

    @property
    def tasks(self) -> "set[asyncio.Task[None]]":
        """What works on messages that are not under way."""
        return self._mending | ({self._holding} if self._holding is not None else set())

    def queue(
        self,
        messages: Sequence[Outgoing],
        future: "asyncio.Future[Any]",
        *,
        is_single: bool = False,
        word: "asyncio.Future[Any] | None" = None,
    ) -> None:
        """Queue messages behind all others.

        Args:
            messages: In order.
            future: Gets where they were stored, or the error.
            is_single: Whether it gets one `Published` instead of a list.
            word: The future by which their caller hears of a failure, if that is another one.
        """
        call = Call(messages, future, self._failed, is_single)
        call.word = word or future
        self._numbers += 1
        call.number = self._numbers
        if self._unheard.error is not None:
            fail(future, of_these(self._unheard.error, [None] * len(messages)))
        elif self._holding is None and self._is_known():
            self._producer.queue_call(call)
        else:
            self._hold(call)

    def forget_cancelled(self) -> None:
        """Wait no more for calls whose futures were cancelled."""
        self._held = [call for call in self._held if not call.future.cancelled()]

    def _failed(self, call: Call, error: BaseException) -> None:
        failure = self._failure if isinstance(error, TopicNotFound) and call.number in self._behind else None
        if failure is not None:  # sent again from here, it would overtake what failed before it
            error = of_these(failure, getattr(error, "published", None) or ())
        if failure is not None or not isinstance(error, TopicNotFound | RecordTooLarge) or call.refusals(error) > MENDS:
            fail(call.future, error)
            if isinstance(error, TransportError) and error.retryable:
                self._fail_behind([call], error)
            return
        call.error = error
        if isinstance(error, TopicNotFound):
            self._hold(call)
        else:
            task = asyncio.create_task(self._send_again(call, error))
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)

    def _hold(self, call: Call) -> None:
        self._held.append(call)
        if self._holding is None:
            self._holding = asyncio.create_task(self._hold_until_there())

    async def _hold_until_there(self) -> None:
        """Wait until all that was passed on is answered, make the topic, and pass everything on that was held up."""
        try:
            while self._held:
                await self._producer.answered(self._topic)
                if await self._is_mended(sorted(self._held, key=_NUMBER)):
                    held, self._held = sorted(self._held, key=_NUMBER), []
                    self._holding = None
                    for call in held:
                        if self._holding is not None:
                            self._held.append(call)  # the topic is gone again
                        else:
                            self._producer.queue_call(_again(call))
                    return
        finally:
            if self._holding is asyncio.current_task():
                self._holding = None

    async def _is_mended(self, held: Sequence[Call]) -> bool:
        """Make the topic, or fail these calls."""
        refused = [(call, call.error) for call in held if isinstance(call.error, TransportError)]
        try:
            if not refused:
                await self._ensure([message for call in held for message in call.messages])
                return True
            missing = [message for call, _ in refused for message in _missing(call)]
            refusal = refused[0][1]
            most = max(call.refusals(error) for call, error in refused)
            # Where the topic is there, it may have been made again a moment ago: everything is worth one more attempt.
            if await self._mend(refusal, missing, most) or most == 1:
                return True
            self._give_up([call for call, _ in refused], None)
        except asyncio.CancelledError:
            self._give_up(
                self._held, TransportError(f"The producer was closed while messages waited for topic {self._topic!r}.")
            )
            raise
        except Exception as error:  # noqa: BLE001 - the futures have it
            self._give_up(held, error)
            self._fail_behind(held, error)
        return False

    def _give_up(self, calls: Sequence[Call], error: Exception | None) -> None:
        gone = {*calls}
        self._held = [call for call in self._held if call not in gone]
        for call in calls:
            _fail(call, error)

    def _fail_behind(self, failed: Sequence[Call], error: Exception) -> None:
        """Let what is held up behind calls that have failed fail with them, and what is queued before that is known."""
        first = failed[0].number
        behind = [call for call in self._held if call.number > first]
        self._give_up(behind, error)
        self._unheard.note(error, [call.word for call in (*failed, *behind)])
        if isinstance(error, TransportError) and error.retryable:
            first = min(first, self._behind.start) if first in self._behind else first
            self._behind, self._failure = range(first, self._numbers + 1), error

    async def _send_again(self, call: Call, refusal: TransportError) -> None:
        """Send messages again that were too large, if the topic takes more now."""
        try:
            mended = await self._mend(refusal, _missing(call), call.refusals(refusal))
        except Exception as error:  # noqa: BLE001 - the future has it
            _fail(call, error)
            return
        if not mended:
            _fail(call, None)
        elif self._holding is None:
            self._producer.queue_call(_again(call))
        else:
            self._held.append(call)


def _again(call: Call) -> Call:
    """Return what goes out next of a call: what was not stored, or all of one that was held from the first."""
    return call.again(call.error) if isinstance(call.error, TransportError) else call


def _published(call: Call) -> "Sequence[Any]":
    return getattr(call.error, "published", None) or [None] * len(call.whole)


def _missing(call: Call) -> list[Outgoing]:
    return [message for message, stored in zip(call.whole, _published(call), strict=True) if stored is None]


def _fail(call: Call, error: Exception | None) -> None:
    """Give up what is not stored, with this error or the one of the refusal."""
    reason = error or call.error
    assert reason is not None
    fail(call.future, of_these(reason, _published(call)))
