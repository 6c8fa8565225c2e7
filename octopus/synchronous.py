"""The publisher for code that is not async: instrument callbacks, threads, scripts."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from octopus.arguments import is_count, is_number
from octopus.errors import ConfigurationError, ConnectionFailed
from octopus.events import Headers, Message, Published
from octopus.home import Process, elsewhere
from octopus.logs import get_logger
from octopus.publishing import HeadersLike, Publisher, encode_key
from octopus.send_queue import QUEUE_BYTES, SendQueue, Undelivered
from octopus.serde import JSON, Codec
from octopus.tracing import current
from octopus.transports.base import Producer
from octopus.transports.threaded import end_loop

logger = get_logger("octopus.publishing")

T = TypeVar("T")


class SynchronousPublisher:
    """Publishes from code that is not async: instrument callbacks, threads, scripts. Thread-safe.

        with SynchronousPublisher(connect) as publisher:
            publisher.publish("readings", {"kelvin": 4.2})

    `publish` waits for the acknowledgement; `send` returns at once. Their events go out in the order of the calls.

    Its client lives in a thread and loop of its own, so a blocked caller never starves it. It does not survive a fork: open
    one in each process. In a coroutine it works, but blocks the event loop meanwhile; `await app.publish(…)` does not.

    The end of the `with` block delivers what was sent, and raises if it could not and neither `on_error` nor a caller of
    `flush` was told.

    Args:
        connect: Opens a started producer and closes it again.
        codec: For values that are neither bytes nor text.
        name: Of its app, for its errors.
        on_error: Told of each event of `send` that is not delivered, in the thread of the publisher: it must be quick and wait for
            nothing. It may `send`, also the same event.
        queue_bytes: What `send` may have queued or on its way. Keys, values and headers count, and 200 bytes more for each event.
        close_timeout: Seconds that the end of the `with` block waits for what was sent.

    Raises:
        ConfigurationError: An argument cannot be.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Producer]],
        codec: Codec = JSON,
        *,
        name: str = "this app",
        on_error: Callable[[Undelivered], object] | None = None,
        queue_bytes: int = QUEUE_BYTES,
        close_timeout: float = 30.0,
    ) -> None:
        if on_error is not None and not callable(on_error):
            raise ConfigurationError(
                f"on_error={on_error!r} cannot be called: give a function of one Undelivered event."
            )
        if not is_count(queue_bytes, 1):
            raise ConfigurationError(f"queue_bytes={queue_bytes!r} is not a whole number of bytes, at least 1.")
        if not is_number(close_timeout, 0, threading.TIMEOUT_MAX):
            raise ConfigurationError(f"close_timeout={close_timeout!r} is not a number of seconds, at least 0.")
        self._connect = connect
        self._codec = codec
        self._name = name
        self._on_error = on_error
        self._queue_bytes = queue_bytes
        self._close_timeout = close_timeout
        self._process: Process | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._producer: AbstractAsyncContextManager[Producer] | None = None
        self._publisher: Publisher | None = None
        self._queue: SendQueue | None = None
        self._submitting = threading.Lock()

    def __enter__(self) -> Self:
        if self._thread is not None and self._process is not None and self._process.is_this():
            raise ConfigurationError(
                f"The synchronous publisher of {self._name} is open already; threads may share it. For another one call "
                "app.synchronous_publisher() again."
            )
        self._process = Process()
        self._submitting = threading.Lock()  # a fork may have copied it while a thread held it
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="octopus publisher", daemon=True)
        self._thread.start()
        try:
            self._publisher = self._wait(self._start())
        except BaseException:
            self._end_thread()
            raise
        self._queue = SendQueue(
            self._queue_bytes, self._loop, self._publisher.queue, self._on_error, self._thread.ident, self._name
        )
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._process is None or not self._process.is_this():
            return  # the thread stayed in the parent, which delivers the queued messages
        assert self._producer is not None
        assert self._queue is not None
        with self._submitting:
            self._publisher = None
        queue, self._queue = self._queue, None
        queue.close()
        try:
            if not queue.wait(self._close_timeout):
                self._wait(queue.give_up(self._close_timeout))
            self._wait(self._producer.__aexit__(None, None, None))
        finally:
            self._end_thread()
        if self._on_error is None and (undelivered := queue.failure()) is not None:
            if error is None:
                raise undelivered
            logger.error("%s", undelivered)  # the block has failed with another error already

    def send(
        self,
        topic: str,
        value: Any,
        *,
        key: bytes | str | None = None,
        headers: HeadersLike = (),
        timeout: float | None = 30.0,
    ) -> None:
        """Queue one event and return; events with equal keys keep their order.

        Memory is bounded: with `queue_bytes` queued or on their way it waits for room. Errors of delivery surface by `on_error`, from
        `flush`, and at the end of the `with` block. What is queued is lost when the process dies: `flush` before you rely on it.

        Args:
            topic: Where to.
            value: Bytes and text go as they are, None is a tombstone, anything else is encoded by the app's codec, here and now.
            key: Chooses the partition.
            headers: Name and value pairs, or a mapping.
            timeout: Seconds to wait for room; 0 does not wait, None waits as long as it takes.

        Raises:
            QueueFull: There is no room. The event is not queued.
            TypeError: The value, key or headers cannot be encoded.
            ConfigurationError: It is not open, or not in this process.
        """
        publisher, queue = self._publisher, self._queue
        if publisher is None or queue is None or not self._process.is_this():  # type: ignore[union-attr]
            self._check()
            raise self._not_open()
        if headers:
            outgoing = publisher.outgoing(topic, Message(value, key=key, headers=headers))
        elif type(value) is Message:
            outgoing = publisher.outgoing(topic, value, encode_key(key))
        else:
            encoded = key.encode() if type(key) is str else key if key is None else encode_key(key)
            outgoing = publisher.outgoing(topic, value, encoded)
        queue.put(outgoing, timeout)

    def flush(self, timeout: float | None = 30.0) -> None:
        """Wait until everything is acknowledged that was sent before.

        Raises:
            TransportError: Some of what was sent since the last flush was not delivered; says how much, and why the first.
            TimeoutError: It is not all acknowledged within `timeout` seconds. It may still be.
            ConfigurationError: It is not open, or not in this process.
        """
        self._check()
        if (queue := self._queue) is None:
            raise self._not_open()
        if not queue.wait(timeout):
            events = "1 event is" if (waiting := queue.open) == 1 else f"{waiting} events are"
            raise TimeoutError(
                f"{events} not acknowledged after {timeout:g} s that the synchronous publisher of {self._name} has sent; "
                "all may yet be stored. Check that the broker runs."
            )
        if (undelivered := queue.failure()) is not None:
            raise undelivered

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
        self._check()
        with self._submitting:
            if self._publisher is None:
                raise self._not_open()
            assert self._loop is not None
            waiting = asyncio.run_coroutine_threadsafe(_within(current.get(), work(self._publisher)), self._loop)
        try:
            return waiting.result(timeout)
        except TimeoutError as error:
            if waiting.done():
                raise  # its own
            raise TimeoutError(
                f"What the synchronous publisher of {self._name} publishes is not acknowledged after {timeout:g} s; it may yet be stored. "
                "Check that the broker runs."
            ) from error
        except CancelledError as error:
            raise ConnectionFailed(
                f"The synchronous publisher of {self._name} was closed while this waited; it may yet be stored. Close it "
                "when the threads that use it have ended."
            ) from error

    def _check(self) -> None:
        """Refuse a call in another process, or one that would wait for itself."""
        if self._process is not None and not self._process.is_this():
            raise elsewhere(
                f"The synchronous publisher of {self._name}",
                self._process.id,
                "Open one in this process: `with app.synchronous_publisher() as publisher:`.",
            )
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                f"The synchronous publisher of {self._name} was called from its own thread, which would wait for itself. "
                "Publish from the code that uses it."
            )

    @staticmethod
    def _not_open() -> ConfigurationError:
        return ConfigurationError("The synchronous publisher is not open: use it in a `with` block.")

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


async def _within(headers: Headers, work: Coroutine[Any, Any, T]) -> T:
    """Publish, in the publisher's own loop, on behalf of the record that its caller runs for."""
    current.set(headers)
    return await work
