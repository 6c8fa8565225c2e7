"""What a handler returns, encoded and published. What cannot be published is a failure of the handler, not of the broker."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from octopus.errors import ConfigurationError, ResultRefused, TransportError
from octopus.events import Message
from octopus.logs import get_logger
from octopus.outcomes import OUTCOMES
from octopus.patience import Patience
from octopus.pipeline.attempts import attempt_that_runs
from octopus.routing import Route
from octopus.transports.base import Outgoing

logger = get_logger("octopus.handlers")

Encode = Callable[[str | None, Any, bytes | None], Outgoing]
"""Topic unless the value says, value, key unless the value says."""

Send = Callable[[Sequence[Outgoing]], Awaitable[Any]]
"""Publishes in order; returns when all are acknowledged."""


class Results:
    """Publishes what the handler of a route returns.

    Args:
        route: Whose handler.
        encode: Turns what it returns into what is published.
        send: Publishes it.
    """

    def __init__(self, route: Route, encode: Encode, send: Send) -> None:
        self._name = route.name
        self._to = route.to
        self._encode = encode
        self._send = send
        self._patience = Patience(logger, route.name, "results")
        self._single: set[type] = set()  # of what was returned: one value each, for the topic of `to=`

    def put(self, result: Any, key: bytes | None) -> None:
        """Let the outputs of the attempt that runs be on their way. Raises as `messages`.

        Args:
            result: What the handler returned.
            key: Of its messages that have none of their own.
        """
        attempt = attempt_that_runs()
        for message in self.messages(result, key):
            attempt.outlet.outputs.put(attempt, attempt.record, message)

    async def publish(self, result: Any, key: bytes | None) -> None:
        """Publish and wait until all is acknowledged, however long the broker is away.

        Args:
            result: What the handler returned.
            key: Of its messages that have none of their own.

        Raises:
            ResultRefused: It cannot be published.
            TransportError: The broker refuses it.
        """
        if messages := self.messages(result, key):
            try:
                await self._send(messages)
            except ConfigurationError as error:
                raise ResultRefused(f"handler {self._name!r}: {error}") from error
            except TransportError as error:
                if not error.retryable:
                    raise
                # The handler is done, and running it again would not bring the broker, or the topic, back.
                await self._patience.until_all_sent(self._send, messages, error)

    def messages(self, result: Any, key: bytes | None) -> Sequence[Outgoing]:
        """Encode what the handler returned.

        Raises:
            ResultRefused: It cannot be published.
        """
        to, encode = self._to, self._encode
        if type(result) in self._single:
            return (encode(to, result, key),)
        # A NamedTuple is one value, although it is a tuple.
        several = isinstance(result, list) or type(result) is tuple
        results = result if several else (result,)
        messages = []
        for each in results:
            if each is None:
                continue
            kind = type(each)
            if kind in OUTCOMES or (to is None and kind is not Message):
                raise self._refused(kind)
            try:
                messages.append(encode(to, each, key))
            except ConfigurationError as error:
                raise ResultRefused(f"handler {self._name!r}: {error}") from error
        if messages and not several and to is not None and type(result) is not Message:
            self._single.add(type(result))
        return messages

    def _refused(self, kind: type) -> ResultRefused:
        name, what = self._name, f"returned a value of type {kind.__qualname__}"
        if kind in OUTCOMES:
            return ResultRefused(
                f"handler {name!r} {what}, which is an outcome: return None, or raise Reject(…) or RetryLater(…)."
            )
        return ResultRefused(
            f"handler {name!r} {what}, and nothing says where it goes: give it to=, return a Message(…, topic=…), or "
            "return None."
        )
