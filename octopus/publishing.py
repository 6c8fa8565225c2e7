"""From values to records on a topic, for `app.publish`, `to=` and the synchronous publisher."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, Self, TypeVar

from octopus.errors import ConfigurationError, ConnectionFailed
from octopus.events import Headers, Message, Published
from octopus.home import Home, elsewhere
from octopus.serde import JSON, Codec, encode
from octopus.tracing import current, traced
from octopus.transports.base import Outgoing, Producer
from octopus.transports.threaded import end_loop

T = TypeVar("T")

HeadersLike = Headers | Mapping[str, bytes | str | None]


class Publisher:
    """Encodes messages and publishes them.

    Args:
        producer: Where to.
        codec: For values that are neither bytes nor text.
    """

    def __init__(self, producer: Producer, codec: Codec = JSON) -> None:
        self._producer = producer
        self._codec = codec
        # Records without a content type are JSON (octopus.serde), so only others need say so.
        self._announce: Headers = () if codec is JSON else (("content-type", codec.content_type.encode()),)

    async def publish(self, topic: str, message: Any) -> Published:
        """Publish a value or `Message`; return once it is acknowledged by all in-sync replicas."""
        return await self._producer.send(self.outgoing(topic, message))

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
            TypeError: It cannot be encoded.
            ConfigurationError: No topic is given.
        """
        if not isinstance(message, Message):
            if topic is None:
                raise ConfigurationError(
                    f"A {type(message).__qualname__} has no topic: give to= or Message(…, topic=…), or publish it with app.publish."
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
            message.partition,
            None if message.timestamp is None else round(message.timestamp * 1000),
        )

    def _headers(self, value: Any, headers: HeadersLike) -> Headers:
        given = encode_headers(headers) if headers else ()
        if not self._announce or value is None or (isinstance(value, str | bytes) and not isinstance(value, Enum)):
            return given
        return [*given, *self._announce]


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


async def _within(headers: Headers, work: Coroutine[Any, Any, T]) -> T:
    """Publish, in the publisher's own loop, on behalf of the record that its caller runs for."""
    current.set(headers)
    return await work


def encode_key(key: bytes | str | None) -> bytes | None:
    """Return a key's bytes; text is UTF-8."""
    return key.encode() if isinstance(key, str) else key


def encode_headers(headers: HeadersLike) -> Headers:
    """Return headers as name and value pairs; text values are UTF-8."""
    pairs: Iterable[tuple[str, bytes | str | None]] = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]


class SynchronousPublisher:
    """Publishes from code that is not async: instrument callbacks, threads, scripts. Thread-safe.

        with SynchronousPublisher(connect) as publisher:
            publisher.publish("readings", {"kelvin": 4.2})

    Its client lives in a thread and loop of its own, so a blocked caller never starves it. It does not survive a fork: open
    one in each process. In a coroutine it works, but blocks the event loop meanwhile; `await app.publish(…)` does not.

    Args:
        connect: Opens a started producer and closes it again.
        codec: For values that are neither bytes nor text.
        name: Of its app, for its errors.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Producer]],
        codec: Codec = JSON,
        *,
        name: str = "this app",
    ) -> None:
        self._connect = connect
        self._codec = codec
        self._name = name
        self._process = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._producer: AbstractAsyncContextManager[Producer] | None = None
        self._publisher: Publisher | None = None
        self._submitting = threading.Lock()

    def __enter__(self) -> Self:
        if self._thread is not None and self._process == os.getpid():
            raise ConfigurationError(
                f"The synchronous publisher of {self._name} is open already; threads may share it. For another one call "
                "app.synchronous_publisher() again."
            )
        self._process = os.getpid()
        self._submitting = threading.Lock()  # a fork may have copied it while a thread held it
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="octopus publisher", daemon=True)
        self._thread.start()
        try:
            self._publisher = self._wait(self._start())
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._process != os.getpid():
            return  # the thread stayed in the parent, which delivers the queued messages
        assert self._producer is not None
        with self._submitting:
            self._publisher = None
        try:
            self._wait(self._producer.__aexit__(None, None, None))
        finally:
            self._end_thread()

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        timeout: float | None = 30.0,
    ) -> Published:
        """Publish one message; return once it is acknowledged.

        Raises:
            TransportError: The broker refused it or could not be reached.
            TimeoutError: No acknowledgement within `timeout` seconds; it may still arrive.
            ConfigurationError: It is not open, or not in this process.
        """
        message = Message(value, key=key, headers=headers)
        return self._submit(lambda publisher: publisher.publish(topic, message), timeout)

    def publish_many(self, topic: str, messages: Iterable[Any], *, timeout: float | None = 300.0) -> list[Published]:
        """Publish values or `Message`s in order; return once all are acknowledged. Raises as `publish`."""
        listed = list(messages)
        return self._submit(lambda publisher: publisher.publish_many(topic, listed), timeout)

    def _submit(self, work: Callable[[Publisher], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        if self._process and self._process != os.getpid():
            raise elsewhere(
                f"The synchronous publisher of {self._name}",
                self._process,
                "Open one in this process: `with app.synchronous_publisher() as publisher:`.",
            )
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                f"The synchronous publisher of {self._name} was called from its own thread, which would wait for itself. "
                "Publish from the code that uses it."
            )
        with self._submitting:
            if self._publisher is None:
                raise ConfigurationError("The synchronous publisher is not open: use it in a `with` block.")
            assert self._loop is not None
            waiting = asyncio.run_coroutine_threadsafe(_within(current.get(), work(self._publisher)), self._loop)
        try:
            return waiting.result(timeout)
        except CancelledError as error:
            raise ConnectionFailed(
                f"The synchronous publisher of {self._name} was closed while this waited; it may yet be stored. Close it "
                "when the threads that use it have ended."
            ) from error

    async def _start(self) -> Publisher:
        self._producer = self._connect()
        return Publisher(await self._producer.__aenter__(), self._codec)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_thread(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(end_loop(), self._loop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
