"""Texts and lines published as events."""

import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from octopus.config import Settings
from octopus.errors import ConfigurationError, OctopusError, OperationFailed
from octopus.events import Headers, Published
from octopus.operations.lines import read_lines
from octopus.operations.progress import unseen
from octopus.operations.spelling import spell_count
from octopus.text import visible
from octopus.transports.base import Outgoing, Transport
from octopus.transports.opening import producing

BATCH = 2000
"""Messages that are published together."""

FLUSH_WITHIN = 0.1
"""Seconds after which lines are published although their batch is not full."""

Refuse = Callable[[str], OctopusError]
"""Turns the reason why an event cannot be published into the error that names it."""


class Span(msgspec.Struct, frozen=True):
    """The first and the last offset that was written in a partition."""

    first: int
    last: int


class PublishedEvents(msgspec.Struct, frozen=True):
    """What has been published.

    Attributes:
        topic: Where it is.
        count: Events.
        bytes: Of their values.
        seconds: How long that took.
        offsets: The span of each partition.
    """

    topic: str
    count: int = 0
    bytes: int = 0
    seconds: float = 0.0
    offsets: Mapping[int, Span] = {}

    def plus(self, batch: Sequence[Outgoing], published: Sequence[Published], seconds: float) -> "PublishedEvents":
        """Return what has been published with one batch more."""
        offsets = {**self.offsets}
        for place in published:
            span = offsets.get(place.partition) or Span(place.offset, place.offset)
            offsets[place.partition] = Span(min(span.first, place.offset), max(span.last, place.offset))
        size = sum(len(message.value or b"") for message in batch)
        return PublishedEvents(self.topic, self.count + len(batch), self.bytes + size, seconds, offsets)


class Envelope(msgspec.Struct, frozen=True):
    """What is the same for every event.

    Attributes:
        topic: Where to.
        headers: Of every event.
        key: Of every event; None for no key.
        key_field: The field of an event that its key is taken from; None for none.
        partition: A fixed partition, or None.
        is_raw: Whether values go as they are, JSON or not.
    """

    topic: str
    headers: Headers = ()
    key: str | None = None
    key_field: str | None = None
    partition: int | None = None
    is_raw: bool = False

    def message_of(self, text: str) -> Outgoing:
        """Return the message of a value that is given as text.

        Raises:
            ConfigurationError: It begins like JSON and is none, or has no field for the key.
        """
        data = os.fsencode(text)
        if not self.is_raw and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                msgspec.json.decode(data, type=msgspec.Raw)
            except msgspec.DecodeError as error:
                raise ConfigurationError(
                    f"{visible(text[:80])} begins like JSON but is none: {error}. With --raw it is sent as it is."
                ) from error
        return self._outgoing(data, lambda reason: ConfigurationError(f"{visible(text[:80])} {reason}."))

    async def messages_of_lines(self, source: Path | int) -> AsyncIterator[list[Outgoing]]:
        """Yield the messages of the lines of a file, in batches, as they come; the input may be endless.

        Args:
            source: A file, or the descriptor of an open one.

        Raises:
            OperationFailed: A line is not JSON, or has no field for the key; the lines before it were yielded.
        """
        name = str(source) if isinstance(source, Path) else "standard input"
        number = 0
        async for batch in read_lines(source, most=BATCH, within=FLUSH_WITHIN):
            messages: list[Outgoing] = []
            wrong: OperationFailed | None = None
            for line in batch:
                number += 1
                if self.is_raw:
                    messages.append(self._outgoing(line, OperationFailed))
                elif line.strip():
                    try:
                        messages.append(self._message_of_line(line, name, number))
                    except OperationFailed as error:
                        wrong = error
                        break
            if messages:
                yield messages  # what stands before a bad line is published
            if wrong is not None:
                raise wrong

    def _message_of_line(self, line: bytes, name: str, number: int) -> Outgoing:
        before = f"The {spell_count(number - 1, 'line')} before it {'was' if number == 2 else 'were'} published. "

        def refuse(reason: str) -> OperationFailed:
            return OperationFailed(f"Line {number} of {name} {reason}. {before if number > 1 else ''}See --raw.")

        try:
            msgspec.json.decode(line, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise refuse(f"is not JSON ({error}): {visible(line[:60])}") from error
        return self._outgoing(line, refuse)

    def _outgoing(self, data: bytes, refuse: Refuse) -> Outgoing:
        key = self.key.encode() if self.key is not None else None
        if self.key_field is not None:
            key = self._key_of(data, refuse)
        return Outgoing(self.topic, data, key, self.headers, self.partition)

    def _key_of(self, data: bytes, refuse: Refuse) -> bytes:
        try:
            value = msgspec.json.decode(data)
        except msgspec.DecodeError:
            value = None
        found = value.get(self.key_field) if isinstance(value, dict) else None
        if found is None:
            raise refuse(f"has no field {self.key_field!r} to take the key from")
        return found.encode() if isinstance(found, str) else msgspec.json.encode(found)


async def repeated(messages: Sequence[Outgoing], count: int) -> AsyncIterator[list[Outgoing]]:
    """Yield messages `count` times, in batches."""
    waiting: list[Outgoing] = []
    for _ in range(count):
        waiting += messages
        if len(waiting) >= BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


async def publish_batches(
    transport: Transport,
    settings: Settings,
    topic: str,
    batches: AsyncIterable[Sequence[Outgoing]],
    *,
    clock: Callable[[], float] = time.monotonic,
    advance: Callable[[PublishedEvents], None] = unseen,
) -> PublishedEvents:
    """Publish batches of messages to a topic, one after the other, as they come.

    Args:
        transport: Where.
        settings: How to produce, and whether a missing topic is made.
        topic: Of the messages.
        batches: The messages.
        clock: Seconds, from any beginning.
        advance: Told after each batch what has been published up to then.

    Returns:
        What was published, once all in-sync replicas have all of it.

    Raises:
        TransportError: The broker does not answer, or refuses; earlier batches are published.
        OperationFailed: The batches end with it.
    """
    done, began = PublishedEvents(topic), clock()
    async with producing(transport, settings) as producer:
        async for batch in batches:
            done = done.plus(batch, await producer.send_many(batch), clock() - began)
            advance(done)
    return msgspec.structs.replace(done, seconds=round(clock() - began, 6), offsets=dict(sorted(done.offsets.items())))
