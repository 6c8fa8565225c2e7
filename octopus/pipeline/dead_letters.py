"""Takes dead letters to their topic, with their cause; or stops processing.

A dead letter carries the original key, value bytes and headers, and headers of its own:

    octopus-dead-letter-reason      one sentence
    octopus-dead-letter-error       the exception's type, module-qualified
    octopus-dead-letter-traceback   SHA-256 of the traceback's frames (first 16 hex digits): equal for equal causes
    octopus-dead-letter-topic       where it was
    octopus-dead-letter-partition
    octopus-dead-letter-offset
    octopus-dead-letter-timestamp   milliseconds since the epoch, of the original
    octopus-dead-letter-attempts
    octopus-dead-letter-handler
    octopus-dead-letter-shed        what had to stay behind for it to fit: `trace`, or `headers`, the original's but for content-type
"""

import asyncio
import hashlib
import traceback
from collections import deque
from functools import partial

import msgspec

from octopus.config import TOPIC_NAME
from octopus.errors import HandlerStopped, RecordTooLarge, TransportError
from octopus.events import Headers, Record
from octopus.logs import get_logger
from octopus.outcomes import DeadLetter
from octopus.patience import Patience
from octopus.routing import DEAD_LETTER_SUFFIX
from octopus.transports.base import Outgoing, Producer

logger = get_logger("octopus.handlers")

PREFIX = "octopus-dead-letter-"
SUFFIX = DEAD_LETTER_SUFFIX
TRACE = frozenset(PREFIX + name for name in ("error", "traceback", "timestamp"))
SHORT_REASON = 200
"""Bytes that are kept of the reason where the whole dead letter does not fit."""


class DeadLetters:
    """Where the dead letters of one handler go.

    Args:
        producer: Publishes them.
        handler: The handler's name.
        topic: A fixed topic; None for `<topic>.dead-letter` of each record; False for none: a dead letter stops processing.
        limit: Dead letters within `window` seconds that stop processing; 0 for no limit.
        window: Seconds.
    """

    def __init__(
        self,
        producer: Producer,
        handler: str,
        *,
        topic: str | bool | None = None,
        limit: int = 0,
        window: float = 60.0,
    ) -> None:
        self._producer = producer
        self._handler = handler
        self._topic = topic
        self._limit = limit
        self._window = window
        self._recent: deque[float] = deque(maxlen=limit or 1)
        self._patience = Patience(logger, handler, "dead letters")

    async def publish(self, record: Record, dead_letter: DeadLetter, attempt: int) -> None:
        """Publish a dead letter; return once it is acknowledged. A broker that is away is waited for.

        Raises:
            HandlerStopped: There is no dead-letter topic, it refuses, or too many events are dying. The record stays
                unsettled and comes again after the mend.
        """
        if dead_letter.rejected and self._topic is False:
            return  # an explicit no needs no dead letter
        if self._topic is False:
            raise HandlerStopped(
                f"{self._handler} cannot handle {record.coordinates} ({dead_letter.reason}) and has no dead-letter topic. "
                "Mend the handler and start again, or give it dead_letter=."
            ) from dead_letter.error
        if not dead_letter.rejected:
            self._count(record, dead_letter)
        topic = self._topic if isinstance(self._topic, str) else record.topic + SUFFIX
        if not TOPIC_NAME.fullmatch(topic):  # of a topic that matched a pattern: the names of others are checked before
            raise HandlerStopped(
                f"{self._handler} cannot write the dead letter of {record.coordinates}: {topic!r} cannot be a topic, it has "
                f"{len(topic)} characters and 249 are possible. Name one with dead_letter=."
            ) from dead_letter.error
        headers = [*record.headers, *self._headers(record, dead_letter, attempt)]
        message = Outgoing(topic, record.value, record.key, headers, source=record.topic)
        while True:
            try:
                await self._patience.until_sent(partial(self._producer.send, message))
                return
            except TransportError as error:
                smaller = shed(message) if isinstance(error, RecordTooLarge) else None
                if smaller is None:
                    raise HandlerStopped(
                        f"{self._handler} cannot write the dead letter of {record.coordinates} to {topic!r}: {error}"
                    ) from error
                message = smaller

    def _count(self, record: Record, dead_letter: DeadLetter) -> None:
        if not self._limit:
            return
        now = asyncio.get_running_loop().time()
        if len(self._recent) == self._limit and now - self._recent[0] <= self._window:
            raise HandlerStopped(
                f"{self._handler} stopped at {record.coordinates}: {self._limit} events died within {self._window:g} s, "
                f"the last because it {dead_letter.reason}. Nothing was lost; mend the cause and start again, or raise "
                "worker.dead_letter_limit."
            ) from dead_letter.error
        self._recent.append(now)

    def _headers(self, record: Record, dead_letter: DeadLetter, attempt: int) -> Headers:
        error = dead_letter.error
        kind = f"{type(error).__module__}.{type(error).__qualname__}" if error is not None else ""
        entries = {
            "reason": dead_letter.reason[:1000],
            "error": kind.removeprefix("builtins."),
            "traceback": _digest(error) if error is not None else "",
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "timestamp": str(record.timestamp),
            "attempts": str(attempt),
            "handler": self._handler,
        }
        return [(PREFIX + name, text.encode(errors="backslashreplace")) for name, text in entries.items() if text]


def shed(message: Outgoing) -> Outgoing | None:
    """Return a dead letter that did not fit with less in it, but its whole key and value; None when there is no less.

    First goes what only explains, then the headers of the original, but for its content type, then all that is left.
    """
    own = [(name, value or b"") for name, value in message.headers if name.startswith(PREFIX)]
    brief = [(name, value[:SHORT_REASON]) for name, value in own if name not in TRACE and name != PREFIX + "shed"]
    original = original_headers(message.headers)
    kinds = [(name, value) for name, value in original if name.lower() == "content-type"]
    smaller: Headers
    if not any(name == PREFIX + "shed" for name, _ in own) and own:
        smaller, lost = [*original, *brief, (PREFIX + "shed", b"trace")], "what explains it"
    elif len(original) > len(kinds):
        smaller, lost = [*kinds, *brief, (PREFIX + "shed", b"headers")], "the original's headers"
    elif message.headers:
        smaller, lost = kinds if own else [], "all headers"
    else:
        return None
    logger.warning("a dead letter for %r does not fit and is written without %s", message.topic, lost)
    return msgspec.structs.replace(message, headers=smaller)


def original_headers(headers: Headers) -> Headers:
    """Return a dead letter's headers without those that were added to it."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIX)]


def _digest(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    text = "\n".join(f"{frame.filename}:{frame.name}:{frame.line}" for frame in frames) + type(error).__qualname__
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
