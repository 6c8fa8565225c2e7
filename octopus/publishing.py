"""From values to records on a topic, for `app.publish`, `to=` and the synchronous publisher."""

import asyncio
import operator
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from enum import Enum
from typing import Any, Protocol

from octopus.errors import ConfigurationError
from octopus.events import Headers, Message, Published
from octopus.home import Home, elsewhere
from octopus.serde import JSON, Codec, encode
from octopus.tracing import traced
from octopus.transports.base import Outgoing, Producer
from octopus.transports.queueing import Queued

HeadersLike = Headers | Mapping[str, bytes | str | None]


class RunningAttempt(Protocol):
    """An attempt of a handler, for what is published meanwhile."""

    @property
    def producer(self) -> Producer:
        """Where its outputs go."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether it runs yet: tasks that it has started may outlive it, and publish for themselves."""
        ...

    async def outputs_gone(self) -> None:
        """Wait until outputs of earlier records are where nothing overtakes them."""
        ...

    def queue(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish with the outputs of the record that it runs for, in order; the record settles when all are acknowledged."""
        ...


current_attempt: ContextVar[RunningAttempt | None] = ContextVar("octopus attempt", default=None)
"""The attempt that runs, where its outputs do not keep its handler waiting."""


class Publisher:
    """Encodes messages and publishes them.

    Args:
        producer: Where to.
        codec: For values that are neither bytes nor text.
    """

    def __init__(self, producer: Producer, codec: Codec = JSON) -> None:
        self._producer = producer
        self._codec = codec
        self._last: tuple[tuple[Any, ...], Headers] = (), ()  # headers as they were given, and encoded
        # Records without a content type are JSON (octopus.serde), so only others need say so.
        self._announce: Headers = () if codec is JSON else (("content-type", codec.content_type.encode()),)

    async def publish(self, topic: str, message: Any) -> Published:
        """Publish a value or `Message`; return once it is acknowledged by all in-sync replicas."""
        outgoing = self.outgoing(topic, message)
        if (attempt := self._attempt()) is not None:
            await attempt.outputs_gone()
        return await self._producer.send(outgoing)

    def publish_soon(self, topic: str, message: Any) -> "asyncio.Future[Published]":
        """Queue a value or `Message` in order, without waiting; the future is done once it is acknowledged.

        In a handler it goes out with the outputs of its record, which settles only when it is acknowledged.
        """
        outgoing = self.outgoing(topic, message)
        if (attempt := self._attempt()) is not None:
            return attempt.queue(outgoing)
        return self._producer.queue_one(outgoing)

    def _attempt(self) -> RunningAttempt | None:
        """Return the attempt that runs, where its outputs go to the same producer and do not keep its handler waiting."""
        attempt = current_attempt.get()
        is_its = attempt is not None and attempt.is_running and attempt.producer is self._producer
        return attempt if is_its else None

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        """Queue encoded messages in order, without waiting."""
        return self._producer.queue(messages)

    async def publish_many(self, topic: str | None, messages: Iterable[Any]) -> list[Published]:
        """Publish values or `Message`s in order; return once all are acknowledged."""
        if topic is None:
            return await self.send([self.outgoing(topic, message) for message in messages])
        trace = traced(())
        return await self.send(
            [
                Outgoing(topic, each, headers=trace) if type(each) is bytes else self.outgoing(topic, each)
                for each in messages
            ]
        )

    async def send(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish encoded messages, in order; return once all are acknowledged."""
        if (attempt := self._attempt()) is not None:
            await attempt.outputs_gone()
        if len(messages) == 1:
            return [await self._producer.send(messages[0])]  # shares batches with concurrent ones
        return await self._producer.send_many(messages)

    def outgoing(self, topic: str | None, message: Any, key: bytes | None = None) -> Outgoing:
        """Encode a value or `Message`.

        Args:
            topic: Where to, unless the message says.
            message: The value, or a `Message`.
            key: Its key, unless the message says.

        Raises:
            TypeError: It cannot be encoded, or its key, headers, partition or time are none.
            ValueError: Its time is none that Kafka can store.
            ConfigurationError: No topic is given.
        """
        if not isinstance(message, Message):
            if topic is None:
                raise ConfigurationError(
                    f"A value of type {type(message).__qualname__} has no topic: give to= or Message(…, topic=…), or publish it with app.publish."
                )
            headers = self._headers(message, ()) if self._announce else ()
            return Outgoing(topic, encode(message, self._codec), key, traced(headers))
        target = message.topic or topic
        if target is None:
            raise ConfigurationError("A Message has no topic: give to= or Message(…, topic=…).")
        headers = self._headers(message.value, message.headers) if self._announce or message.headers else ()
        return Outgoing(
            target,
            encode(message.value, self._codec),
            key if message.key is None else encode_key(message.key),
            traced(headers),
            None if message.partition is None else _number(message.partition),
            None if message.timestamp is None else _milliseconds(message.timestamp),
        )

    def _headers(self, value: Any, headers: HeadersLike) -> Headers:
        given = self._encoded(headers) if headers else ()
        if not self._announce or value is None or (isinstance(value, str | bytes) and not isinstance(value, Enum)):
            return given
        return [*given, *self._announce]

    def _encoded(self, headers: HeadersLike) -> Headers:
        """Encode headers; where their pairs are those of the last ones, the same objects, that is done already."""
        if type(headers) is not list and type(headers) is not tuple:
            return encode_headers(headers)
        pairs, encoded = self._last
        if len(headers) == len(pairs) and all(map(operator.is_, headers, pairs)):
            return encoded
        encoded = encode_headers(headers)
        if all(type(pair) is tuple for pair in headers):  # others can change
            self._last = (*headers,), encoded
        return encoded


class Connection:
    """The result of `async with app.connected() as connection:`, which publishes through that connection only.

    Args:
        name: Of its app, for its errors.
        home: Where it was opened.
        publisher: Of its producer.
    """

    def __init__(self, name: str, home: Home, publisher: Publisher) -> None:
        self._name = name
        self._home = home
        self._publisher = publisher

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> Published:
        """Publish one message, as `app.publish` does."""
        message = Message(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        return await self._here().publish(topic, message)

    def publish_soon(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> "asyncio.Future[Published]":
        """Queue one message, as `app.publish_soon` does."""
        message = Message(value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        return self._here().publish_soon(topic, message)

    async def publish_many(self, topic: str, messages: Iterable[Any]) -> list[Published]:
        """Publish values or `Message`s in order, as `app.publish_many` does."""
        return await self._here().publish_many(topic, messages)

    def _here(self) -> Publisher:
        if not self._home.is_here():
            raise elsewhere(
                f"This connection of {self._name}",
                self._home.process,
                "Open one of your own here: `async with app.connected():`.",
            )
        return self._publisher


def encode_key(key: bytes | str | None) -> bytes | None:
    """Return a key's bytes; text is UTF-8.

    Raises:
        TypeError: It is neither text nor bytes.
    """
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes | bytearray | memoryview):
        return bytes(key)
    raise TypeError(f"A key is text, bytes or None, and not of type {type(key).__qualname__}.")


def encode_headers(headers: HeadersLike) -> Headers:
    """Return headers as name and value pairs; text values are UTF-8.

    Raises:
        TypeError: They are something else.
    """
    pairs: Iterable[tuple[str, bytes | str | None]]
    if (
        type(headers) is list or type(headers) is tuple
    ):  # most are, and asking for a Mapping takes as long as all the rest
        pairs = headers
    else:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        encoded = [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]
    except UnicodeEncodeError:
        raise
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"Headers are a mapping, or pairs of a name and a value; these, of type {type(headers).__qualname__}, are not."
        ) from error
    for name, value in encoded:
        if not isinstance(name, str):
            raise TypeError(f"The name of a header is text, and not of type {type(name).__qualname__}.")
        if value is not None and not isinstance(value, bytes):
            raise TypeError(f"Header {name!r} is text, bytes or None, and not of type {type(value).__qualname__}.")
    return encoded


def _number(partition: Any) -> int:
    try:
        return operator.index(partition)
    except TypeError as error:
        raise TypeError(f"partition= is a whole number, and not of type {type(partition).__qualname__}.") from error


def _milliseconds(timestamp: Any) -> int:
    try:
        stored: int = round(timestamp * 1000)
    except TypeError as error:
        raise TypeError(
            f"timestamp= is a number of seconds since the epoch, and not of type {type(timestamp).__qualname__}."
        ) from error
    except (ValueError, OverflowError):
        stored = -1
    if not 0 <= stored < 2**63:
        raise ValueError(
            f"timestamp={timestamp!r} is no time that Kafka can store: seconds since the epoch, at least 0."
        )
    return stored
