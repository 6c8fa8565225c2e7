"""A connection to a broker: aiokafka's, with what it lacks put together.

Its session is renewed before it ends (`sessions.py`), a broker that throttles is left in peace (`throttling.py`), and why it
could not be made is kept on the client's name, in words (`foreign.py`), where aiokafka logs every failure and reports "unable to
bootstrap". Once it is open, `Frames` reads its socket and `fetched` the answers that carry records.
"""

import asyncio
import weakref
from collections.abc import Awaitable
from typing import Any

from aiokafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailed

from octopus.errors import OctopusError
from octopus.logs import get_logger
from octopus.transports.kafka import engine, fetched, foreign, greeting
from octopus.transports.kafka.authentication import Authenticator
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.frames import Frames
from octopus.transports.kafka.sessions import SASL_REQUESTS, Session
from octopus.transports.kafka.throttling import Throttle

METADATA_REQUEST = 3

logger = get_logger("octopus.transports")


class Connection(engine.Connection):
    """A connection that authenticates again before its session ends, and says why it could not be made.

    Args:
        host: Where the broker is.
        port: That too.
        client_id: The client's name.
        **options: As aiokafka's connections take them.
    """

    _frames: Frames | None = None
    _authenticator: Authenticator | None = None
    _is_open = False  # TCP, and TLS where it is asked for
    _has_answered = False  # as Kafka does

    def __init__(self, host: str, port: int, *, client_id: ClientName, **options: Any) -> None:
        super().__init__(host, port, client_id=client_id, **options)
        self._session = Session(weakref.ref(self))
        self._throttle = Throttle(client_id, f"{host}:{port}")

    # connecting

    async def connect(self) -> Any:
        """Connect; a failure is kept on the client's name."""
        self.begin_counting_at(foreign.TWO_LINE_ENDS)
        first, where = self.name.greeting, f"{self.host}:{self.port}"
        is_first = not first.is_over
        patience = min(greeting.FIRST_ANSWER, self.request_timeout) if is_first else self.request_timeout
        try:
            # Each question has its own time already; before the first answer they have this one together.
            async with asyncio.timeout(patience if is_first else None):
                with first.said(where, patience):
                    connected = await super().connect()
        except (OSError, KafkaError, TimeoutError) as error:
            failure: BaseException = error
            if not self._has_answered:
                failure = foreign.reason(error, where, self.security_protocol, patience, is_open=self._is_open)
            self.remember(failure)
            raise
        first.is_over = True
        self.remember(None)
        self._take_over()
        return connected

    def remember(self, failure: BaseException | None) -> None:
        """Keep why connecting failed, or forget it."""
        self.name.failure = failure

    def size_of(self, head: bytes) -> int:
        """Refuse what is no size. Of other protocols it is text, mostly: aiokafka would wait for gigabytes, until its time is up."""
        size = super().size_of(head)
        if not 0 <= size <= foreign.HANDSHAKE_BYTES:
            raise foreign.Foreigner(head)
        return size

    async def ask_versions(self) -> None:
        """Note that there is a connection, then whether there is a broker."""
        self._is_open = True
        await super().ask_versions()
        self._has_answered = True

    def authenticator_oauth(self) -> Authenticator:
        """Return the authenticator that understands refusals."""
        self._authenticator = Authenticator(sasl_oauth_token_provider=self.token_provider)
        return self._authenticator

    async def authenticate(self) -> None:
        """Begin a session, and plan its renewal."""
        self._authenticator = None
        self._session.listen()
        try:
            await super().authenticate()
        except SaslAuthenticationFailed as error:
            if self._authenticator is not None:
                self._authenticator.explain(error)
            raise
        finally:
            self._session.stop_listening()
        if self.transport is not None:
            self._session.plan(self.loop)

    # requests

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send a request, once the broker wants to hear of us again and after a re-authentication that is under way."""
        if request.API_KEY == METADATA_REQUEST and not self.name.create_topics:
            engine.forbid_creation(request)  # a mistyped name must not become a topic
        if request.API_KEY in SASL_REQUESTS or (self._session.gate or self._throttle.gate) is None:
            return self._send_now(request, expect_response)

        async def when_open() -> Any:
            while (gate := self._session.gate or self._throttle.gate) is not None:
                await gate.wait()
            return await self._send_now(request, expect_response)

        return when_open()

    def _send_now(self, request: Any, expect_response: bool) -> Awaitable[Any]:
        return self._session.heard(super().send(request, expect_response))

    # answers

    def _take_over(self) -> None:
        """Read the socket ourselves from now on. Nothing is on its way: everything asked for was answered.

        aiokafka's task goes on reading the stream: if that has ended just now, only this notices.
        """
        if self.transport is not None:
            self._frames = Frames(self, self.streams)
            self.transport.set_protocol(self._frames)

    def frame_received(self, frame: bytes | memoryview) -> None:
        """Answer the oldest request."""
        if not self.unanswered:
            raise ValueError("the broker answered a question that was not asked")
        expected, request, _ = self.unanswered[0]
        if getattr(request, "API_KEY", None) == fetched.API_KEY and request.API_VERSION in fetched.VERSIONS:
            # aiokafka's own way copies every record twice and decodes lengths one by one
            received = int.from_bytes(frame[:4], "big")
            if received == expected:
                self.take_answer(lambda: fetched.read_answer(request.RESPONSE_TYPE, frame))
                self._throttle.note(fetched.throttle_time(request.API_VERSION, frame))
                return
        self.take_frame(bytes(frame))

    def take_frame(self, frame: bytes) -> None:
        """Read a frame as aiokafka does, and look whether it throttles."""
        answered = self.unanswered[0][2]
        super().take_frame(frame)
        if answered.done() and not answered.cancelled() and answered.exception() is None:
            self._throttle.note(getattr(answered.result(), "throttle_time_ms", 0))

    def frames_ended(self, error: BaseException | None) -> None:
        """Close; requests without an answer fail."""
        if error is not None and not isinstance(error, OSError):
            logger.error(
                "What %s:%d sent cannot be read, so its connection is closed.", self.host, self.port, exc_info=error
            )
        self.close(engine.CloseReason.CONNECTION_BROKEN, error or ConnectionResetError("the broker hung up"))

    def close(self, reason: Any = None, exc: BaseException | None = None) -> Any:
        """Close, and forget about renewing; what waits to be sent learns that there is no connection."""
        self._session.close()
        if self._frames is not None:
            self._frames.stop()
        self._throttle.close()
        return super().close(reason, exc)


async def create_connection(host: str, port: int, *, client_id: ClientName, **options: Any) -> Connection:
    """Connect as `aiokafka.conn.create_conn` does; to where the broker is now, if it may move."""
    if client_id.locate is not None:
        try:
            host, _, number = (await client_id.locate()).rpartition(":")
        except OctopusError as error:
            client_id.failure = KafkaConnectionError(str(error))
            raise client_id.failure from error
        host, port = host.strip("[]"), int(number)
    connection = Connection(host, port, client_id=client_id, **options)
    client_id.opened.add(connection)
    await connection.connect()
    if client_id.is_closed:  # while this connection was made: nothing else would close it
        await connection.close()
        raise KafkaConnectionError(f"The client was closed while it connected to {host}:{port}.")
    if client_id.outage is not None:
        client_id.outage.note(None)
    return connection
