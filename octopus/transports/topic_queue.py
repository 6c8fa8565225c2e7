"""The messages for one topic on their way through a producer: in order, also while the topic is made, or made again."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from octopus.errors import RecordTooLarge, TopicNotFound, TransportError
from octopus.events import Published
from octopus.transports.base import Outgoing
from octopus.transports.queueing import Queue, Queued, fail, of_these, size_of

MENDS = 3
"""How often one message is sent again after the cause of its refusal was mended."""

Mend = Callable[[TransportError, Sequence[Outgoing]], Awaitable[bool]]


class TopicQueue:
    """Passes messages on, and sends those again whose refusal could be mended.

    As soon as one of them is refused because the topic is missing, what comes later waits. When all that was passed on is answered
    and the topic is there again, everything goes on in the order in which it came. A message that is too large holds up
    nothing: it is sent again behind what has passed it.

    Args:
        topic: Its name.
        queue: Of the producer that messages are passed on to.
        ensure: Makes the topic.
        mend: Mends the cause of a refusal; tells whether it could.
        is_known: Tells whether the topic is known to be there.
    """

    def __init__(
        self,
        topic: str,
        queue: Queue,
        *,
        ensure: Callable[[Sequence[Outgoing]], Awaitable[None]],
        mend: Mend,
        is_known: Callable[[], bool],
    ) -> None:
        self._topic = topic
        self._queue = queue
        self._ensure = ensure
        self._mend = mend
        self._is_known = is_known
        self._under_way: deque[_Call] = deque()
        self._held: list[_Call] = []  # each of them came, or was refused, since the topic is missing
        self._numbers = 0
        self._holding: asyncio.Task[None] | None = None
        self._mending: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """Bytes of the keys and values that wait here."""
        return sum(size_of(call.messages) for call in self._held)

    @property
    def tasks(self) -> "set[asyncio.Task[None]]":
        """What works on messages that are not under way."""
        return self._mending | ({self._holding} if self._holding is not None else set())

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Queue messages behind all others."""
        self._numbers += 1
        call = _Call(self._numbers, messages)
        while self._under_way and self._under_way[0].is_answered():
            self._answer(
                self._under_way.popleft()
            )  # its callback has not run yet, and may say that this one has to wait
        if self._holding is None and self._is_known():
            self._pass_on(call)
        else:
            self._hold(call)
        return call.future

    def forget_cancelled(self) -> None:
        """Wait no more for calls whose futures were cancelled."""
        self._held = [call for call in self._held if not call.future.cancelled()]
        for call in [*self._under_way]:
            if call.future.cancelled() and call.answer is not None:
                call.answer.cancel()

    def _pass_on(self, call: "_Call") -> None:
        call.part = [at for at, stored in enumerate(call.published) if stored is None] if call.mends else None
        messages = call.messages if call.part is None else [call.messages[at] for at in call.part]
        call.answer = self._queue(messages)
        self._under_way.append(call)
        call.answer.add_done_callback(lambda _: self._answer(call))

    def _hold(self, call: "_Call") -> None:
        self._held.append(call)
        if self._holding is None:
            self._holding = asyncio.create_task(self._hold_until_there())

    def _answer(self, call: "_Call") -> None:
        """Take the answer to what was passed on."""
        answer, call.answer = call.answer, None
        if answer is None:
            return  # taken before
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            call.store(answer.result())
        elif not isinstance(error, TopicNotFound | RecordTooLarge) or error.published is None:
            call.store(getattr(error, "published", None) or ())
            call.fail(error)
        else:
            call.store(error.published)
            call.error = error
            if call.mends == MENDS:
                call.fail(error)
            elif isinstance(error, TopicNotFound):
                self._hold(call)
            else:
                task = asyncio.create_task(self._send_again(call))
                self._mending.add(task)
                task.add_done_callback(self._mending.discard)

    async def _hold_until_there(self) -> None:
        """Wait until all that was passed on is answered, make the topic, and pass everything on that was held up."""
        try:
            while self._held:
                while waiting := [call.answer for call in self._under_way if call.answer is not None]:
                    await asyncio.wait(waiting)
                    await asyncio.sleep(0)  # their callbacks have run
                self._under_way.clear()
                held = sorted(self._held)
                if await self._is_mended(held):
                    held, self._held = sorted(self._held), []
                    self._holding = None
                    for call in held:
                        self._pass_on(call)
                    return
        finally:
            if self._holding is asyncio.current_task():
                self._holding = None

    async def _is_mended(self, held: "Sequence[_Call]") -> bool:
        """Make the topic, or fail these calls."""
        try:
            refused = [call for call in held if call.error is not None]
            if not refused:
                await self._ensure([message for call in held for message in call.messages])
                return True
            missing = [message for call in refused for message in call.missing()]
            assert refused[0].error is not None
            # Where the topic is there, it may have been made again a moment ago: everything is worth one more attempt.
            if await self._mend(refused[0].error, missing) or not any(call.mends for call in refused):
                for call in refused:
                    call.mends += 1
                    call.error = None
                return True
            given_up: Sequence[_Call] = refused
            error: BaseException | None = None
        except asyncio.CancelledError:
            closed = TransportError(f"The producer was closed while messages waited for topic {self._topic!r}.")
            self._give_up(self._held, closed)
            raise
        except Exception as failed:  # noqa: BLE001 - each who waits gets it
            given_up, error = held, failed
        self._give_up(given_up, error)
        return False

    def _give_up(self, calls: "Sequence[_Call]", error: BaseException | None) -> None:
        gone = {*calls}
        self._held = [call for call in self._held if call not in gone]
        for call in calls:
            call.fail(error or call.error)

    async def _send_again(self, call: "_Call") -> None:
        """Send messages again that were too large, if the topic takes more now."""
        assert call.error is not None
        try:
            mended = await self._mend(call.error, call.missing())
        except Exception as error:  # noqa: BLE001 - who waits gets it
            call.fail(error)
            return
        if not mended:
            call.fail(call.error)
            return
        call.mends += 1
        call.error = None
        if self._holding is None:
            self._pass_on(call)
        else:
            self._hold(call)


class _Call:
    """Messages that were queued together.

    Attributes:
        published: Where each of them was stored; None as long as it is not.
        answer: To what is under way; None when nothing is.
        part: Indexes of what is under way; None for all.
        mends: How often a cause was mended.
        error: Why some of them were refused.
    """

    __slots__ = ("answer", "error", "future", "mends", "messages", "number", "part", "published")

    def __init__(self, number: int, messages: Sequence[Outgoing]) -> None:
        self.number = number
        self.messages = messages
        self.future: Queued = asyncio.get_running_loop().create_future()
        self.published: list[Published | None] = []
        self.answer: Queued | None = None
        self.part: list[int] | None = None
        self.mends = 0
        self.error: TransportError | None = None

    def __lt__(self, other: "_Call") -> bool:
        return self.number < other.number

    def is_answered(self) -> bool:
        return self.answer is None or self.answer.done()

    def store(self, published: "Sequence[Published | None]") -> None:
        """Note what became of what was under way."""
        if self.part is None:
            self.published = [*published] or [None] * len(self.messages)
        else:
            for at, stored in zip(self.part, published, strict=False):
                self.published[at] = stored
        if None not in self.published and not self.future.done():
            self.future.set_result(self.published)  # type: ignore[arg-type]

    def missing(self) -> list[Outgoing]:
        """Return what is not stored."""
        if not self.published:
            return [*self.messages]
        return [message for message, stored in zip(self.messages, self.published, strict=True) if stored is None]

    def fail(self, error: BaseException | None) -> None:
        """Give up what is not stored."""
        assert error is not None
        fail(self.future, of_these(error, self.published or [None] * len(self.messages)))
