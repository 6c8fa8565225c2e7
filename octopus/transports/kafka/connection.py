"""aiokafka's connection with its two authentication faults put right, patience, a memory for why connecting failed, and less
copying.

aiokafka 0.14 authenticates once: when the session ends the broker cuts the connection, losing answers in flight. And it
takes a refused bearer token for an accepted one. Both are handled here as KIP-368 and RFC 7628 say. It does not read what an
answer says about throttling (KIP-219): it sends at once into a connection that the broker does not read, and takes the
silence for a time-out if it lasts long enough. Here what comes next waits as long as it was told. Its client also logs
every connection failure and reports "unable to bootstrap"; here the failure is kept on the client's name, which aiokafka
hands to each connection. Once a connection is open, `Frames` reads its socket and `fetched` the answers that carry records.
"""

import asyncio
import contextlib
import logging
import math
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

import aiokafka.client
import aiokafka.conn
import aiokafka.consumer.fetcher
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailed
from aiokafka.protocol.struct import Struct

from octopus.auth.tokens import TokenProvider
from octopus.errors import AuthError, ConnectionFailed, OctopusError
from octopus.logs import get_logger
from octopus.transports.kafka import fetched
from octopus.transports.kafka.frames import Frames

_logger = get_logger("octopus.transports")

# aiokafka has no types here
_Authenticator: Any = aiokafka.conn.OAuthAuthenticator
_Connection: Any = aiokafka.conn.AIOKafkaConnection
_client_module: Any = aiokafka.client
_fetcher_module: Any = aiokafka.consumer.fetcher

logger = get_logger("octopus.transports")

METADATA_REQUEST = 3
SASL_REQUESTS = (17, 36)

SAY_AGAIN = 60.0
"""Seconds until it is said again that a broker throttles."""


HANDSHAKE_BYTES = 1024 * 1024
"""Bytes of the largest answer to a handshake: versions and SASL challenges take a few thousand."""

TWO_LINE_ENDS = int.from_bytes(b"\r\n\r\n", "big")
"""The first request's correlation id. Any number will do for Kafka; services that read lines, as HTTP servers do, see a request end
and object at once, where they would wait for its end as long as we for an answer."""

FOREIGNERS = (
    (b"HTTP", "HTTP"),
    (b"<", "HTTP"),
    (b"SSH-", "SSH"),
    (b"\x15\x03", "TLS (set security.protocol to SSL or SASL_SSL)"),
)
"""How services that are met by mistake begin to speak, and what they speak."""

FIRST_ANSWER = 15.0
"""Seconds for the first answer of a cluster: who names a wrong port should not wait for the time-out of a request."""

SAY_WAITING = 1.5
"""Seconds after which it is said that the first answer is waited for."""

NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""What Python's ssl says of services that answer something else, or hang up."""

Locate = Callable[[], Awaitable[str]]


class Greeting:
    """What all clients of a cluster know of its first answer.

    Attributes:
        is_over: Whether there was one. From then on silence is an outage, and others speak of it.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._is_said = False

    @contextlib.contextmanager
    def said(self, connection: "Connection", patience: float) -> Iterator[None]:
        """Say once, if a block lasts, that the first answer is waited for, for so many seconds at most."""
        timer = asyncio.get_running_loop().call_later(SAY_WAITING, self._say, connection, patience)
        try:
            yield
        finally:
            timer.cancel()

    def _say(self, connection: "Connection", patience: float) -> None:
        if not (self.is_over or self._is_said):
            self._is_said = True
            where = f"{connection.host}:{connection.port}"
            logger.warning("waiting for an answer of %s, for up to %.0f s", where, patience)


class ClientName(str):
    """A client id that remembers why the client's last connection attempt failed.

    Attributes:
        failure: That reason, None once connected.
        throttled_at: When it was last said that a broker throttles, in loop time.
        create_topics: Whether asking for the metadata of a topic may create it.
        locate: Returns where the only broker is now; None where brokers stay put.
        greeting: What the clients of a cluster know of its first answer.
    """

    __slots__ = ("create_topics", "failure", "greeting", "locate", "throttled_at")

    create_topics: bool
    greeting: "Greeting | None"
    failure: BaseException | None
    locate: Locate | None
    throttled_at: float

    def __new__(
        cls,
        name: str,
        *,
        create_topics: bool = False,
        locate: Locate | None = None,
        greeting: "Greeting | None" = None,
    ) -> Self:
        made = super().__new__(cls, name)
        made.greeting = greeting
        made.create_topics = create_topics
        made.failure = None
        made.locate = locate
        made.throttled_at = -math.inf
        return made

    @classmethod
    def of(cls, client: Any) -> Self:
        """Return the name of an `AIOKafkaClient` of ours."""
        name: Self = client._client_id
        return name


class Password(str):
    """A password that does not print itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class TokenBridge(AbstractTokenProvider):
    """Gives aiokafka the tokens of one of our providers, and its errors in a class that aiokafka expects."""

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider

    async def token(self) -> str:
        """Return a valid token. Raises `SaslAuthenticationFailed` from the provider's own error."""
        try:
            return await self._provider.token()
        except OctopusError as error:
            raise SaslAuthenticationFailed(str(error)) from error


class Authenticator(_Authenticator):  # type: ignore[misc]
    """OAUTHBEARER that understands a refusal."""

    refusal: bytes | None = None

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Answer the broker; a challenge that is not empty is a refusal, acknowledged before it is raised."""
        if not self._token_sent:
            first: tuple[bytes, bool] = await super().step(payload)
            return first
        if self.refusal is not None:
            raise SaslAuthenticationFailed("the broker accepted the acknowledgement of its refusal")
        if payload:
            self.refusal = bytes(payload)
            return b"\x01", True
        return None

    def _build_oauth_client_request(self, token: str, extensions: dict[str, str]) -> str:
        if not token or not re.fullmatch(r"[!-+\--~]+", token):
            raise SaslAuthenticationFailed("The token is empty or has characters that a bearer token cannot have.")
        request: str = super()._build_oauth_client_request(token, extensions)
        return request


class Connection(_Connection):  # type: ignore[misc]
    """A connection that authenticates again before its session ends, and says why it could not be made."""

    _gate: asyncio.Event | None = None
    _throttled: asyncio.Event | None = None
    _throttled_until: asyncio.TimerHandle | None = None
    _timer: asyncio.TimerHandle | None = None
    _renewal: "asyncio.Task[None] | None" = None
    _authenticating = False
    _authenticator: Authenticator | None = None
    _session_milliseconds = 0
    _frames: Frames | None = None
    _is_open = False  # TCP, and TLS where it is asked for
    _has_answered = False  # as Kafka does
    _foreign: bytes | None = None  # how the answer of a service began that does not speak Kafka

    async def connect(self) -> Any:
        """Connect; a failure is kept on the client's name."""
        self._correlation_id = TWO_LINE_ENDS - 1
        greeting: Greeting | None = getattr(self._client_id, "greeting", None)
        is_first = greeting is not None and not greeting.is_over
        patience = min(FIRST_ANSWER, self._request_timeout) if is_first else self._request_timeout
        try:
            # Each question has its own time already; before anybody has answered they have this one together.
            async with asyncio.timeout(patience if is_first else None):
                with greeting.said(self, patience) if greeting is not None else contextlib.nullcontext():
                    connected = await super().connect()
        except (OSError, KafkaError, TimeoutError) as error:
            self._remember(self._reason(error, patience))
            raise
        if greeting is not None:
            greeting.is_over = True
        self._remember(None)
        self._take_over()
        return connected

    @staticmethod
    async def _read(reference: "Callable[[], Connection | None]") -> None:
        """Read the answers of the handshake as aiokafka does, but not from whoever does not speak Kafka.

        What looks like a size then is text, mostly: aiokafka would wait for gigabytes, until the request's time is up.
        """
        connection = reference()
        if connection is None:
            return
        reader = connection._reader
        del connection  # an open connection must not keep itself alive
        while True:
            head = await reader.readexactly(4)
            size = int.from_bytes(head, "big", signed=True)
            frame = await reader.readexactly(size) if 0 <= size <= HANDSHAKE_BYTES else None
            connection = reference()
            if connection is None:
                return
            if frame is None:
                connection._foreign = head
                raise ConnectionResetError(_spell_foreign(head))
            connection._handle_frame(frame)
            del connection

    async def _do_version_lookup(self) -> None:
        self._is_open = True
        await super()._do_version_lookup()
        self._has_answered = True

    def _reason(self, error: BaseException, patience: float) -> BaseException:
        """Return why connecting failed, in words for whoever named the address."""
        if isinstance(error.__cause__, ssl.SSLError):
            error = error.__cause__  # with TLS 1.3 a broker refuses a certificate when the handshake has ended for us
        where, protocol = f"{self.host}:{self.port}", self._security_protocol
        is_encrypted = protocol.endswith("SSL")
        hung_up = isinstance(error, KafkaConnectionError | ConnectionResetError | ConnectionAbortedError | EOFError)
        if self._foreign is not None:
            return ConnectionError(_spell_foreign(self._foreign))
        if self._has_answered:
            return error
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            if self._is_open:
                what = f"{where} accepts connections but does not answer as Kafka does"
            elif is_encrypted:
                what = f"{where} does not answer; perhaps it does not speak TLS, which {protocol} asks for"
            else:
                what = f"{where} does not answer"
            return ConnectionError(f"{what} (nothing came for {patience:g} s)")
        if self._is_open and hung_up:
            hint = "" if is_encrypted else " TLS (set security.protocol to SSL or SASL_SSL) or"
            return ConnectionError(
                f"{where} hangs up without an answer, as ports do that expect{hint} another protocol"
            )
        is_no_tls = isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in NO_TLS
        if is_encrypted and not self._is_open and (hung_up or is_no_tls):
            return ConnectionError(f"{where} does not speak TLS, which {protocol} asks for")
        return error

    def _take_over(self) -> None:
        """Read the socket ourselves from now on. Nothing is on its way: everything asked for was answered.

        aiokafka's task goes on reading the stream: if that has ended just now, nobody else will notice.
        """
        if self._writer is not None:
            self._frames = Frames(self, self._protocol)
            self._writer.transport.set_protocol(self._frames)

    def frame_received(self, frame: bytes | memoryview) -> None:
        """Answer the oldest request."""
        if not self._requests:
            raise ValueError("the broker answered what nobody had asked")
        expected, request, waiting = self._requests[0]
        if getattr(request, "API_KEY", None) == fetched.API_KEY and request.API_VERSION in fetched.VERSIONS:
            # aiokafka's own way copies every record twice and decodes lengths one by one
            received = int.from_bytes(frame[:4], "big")
            if received == expected:
                if not waiting.done():
                    waiting.set_result(fetched.read_answer(request.RESPONSE_TYPE, frame))
                self._last_action = time.monotonic()
                self._requests.popleft()
                self._note_throttling(fetched.throttle_time(request.API_VERSION, frame))
                return
        self._handle_frame(bytes(frame))

    def frames_ended(self, error: BaseException | None) -> None:
        """Close; requests without an answer fail."""
        if error is not None and not isinstance(error, OSError):
            _logger.error(
                "What %s:%d sent cannot be read, so its connection is closed.", self.host, self.port, exc_info=error
            )
        self.close(aiokafka.conn.CloseReason.CONNECTION_BROKEN, error or ConnectionResetError("the broker hung up"))

    def _remember(self, failure: BaseException | None) -> None:
        if isinstance(self._client_id, ClientName):
            self._client_id.failure = failure

    def authenticator_oauth(self) -> Authenticator:
        """Return the authenticator that understands refusals."""
        self._authenticator = Authenticator(sasl_oauth_token_provider=self._sasl_oauth_token_provider)
        return self._authenticator

    async def _do_sasl_handshake(self) -> None:
        self._session_milliseconds, self._authenticating, self._authenticator = 0, True, None
        try:
            await super()._do_sasl_handshake()
        except SaslAuthenticationFailed as error:
            challenge = self._authenticator.refusal if self._authenticator is not None else None
            if challenge is None:
                raise
            reason = challenge.decode("utf-8", "replace")
            raise SaslAuthenticationFailed(f"{reason} {' '.join(map(str, error.args))}".strip()) from error
        finally:
            self._authenticating = False
        if self._session_milliseconds > 0 and self._writer is not None:
            delay = self._session_milliseconds / 1000 * random.uniform(0.75, 0.85)
            self._timer = self._loop.call_later(delay, self._renew)

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send a request, once the broker wants to hear of us again and after a re-authentication that is under way."""
        if request.API_KEY == METADATA_REQUEST and not getattr(self._client_id, "create_topics", True):
            request._allow_auto_topic_creation = False  # a mistyped name must not become a topic
        gate = self._gate or self._throttled
        if gate is None or request.API_KEY in SASL_REQUESTS:
            return self._send_now(request, expect_response)

        async def when_open() -> Any:
            while (gate := self._gate or self._throttled) is not None:
                await gate.wait()
            return await self._send_now(request, expect_response)

        return when_open()

    def _handle_frame(self, frame: bytes) -> None:
        answered = self._requests[0][2]
        super()._handle_frame(frame)
        if answered.done() and not answered.cancelled() and answered.exception() is None:
            self._note_throttling(getattr(answered.result(), "throttle_time_ms", 0))

    def _note_throttling(self, milliseconds: int) -> None:
        """Hold back requests for so long, from now on: the time that they may take begins after that."""
        if milliseconds <= 0:
            return
        now = self._loop.time()
        name = self._client_id
        if isinstance(name, ClientName) and now - name.throttled_at >= SAY_AGAIN:
            name.throttled_at = now
            logger.info("%s:%s throttles %s: a quota is used up", self.host, self.port, name)
        until = now + milliseconds / 1000
        if self._throttled_until is not None:
            until = max(until, self._throttled_until.when())
            self._throttled_until.cancel()
        self._throttled = self._throttled or asyncio.Event()
        self._throttled_until = self._loop.call_at(until, self._go_on)

    def _go_on(self) -> None:
        gate, self._throttled, self._throttled_until = self._throttled, None, None
        if gate is not None:
            gate.set()

    def _send_now(self, request: Any, expect_response: bool) -> Awaitable[Any]:
        answer: Awaitable[Any] = super().send(request, expect_response)
        return self._note_session(answer) if self._authenticating else answer

    async def _note_session(self, answer: Awaitable[Any]) -> Any:
        response = await answer
        lifetime = getattr(response, "session_lifetime_ms", 0) or 0
        self._session_milliseconds = max(self._session_milliseconds, lifetime)
        return response

    def _renew(self) -> None:
        if self._writer is not None:
            self._renewal = self._loop.create_task(self._reauthenticate())

    async def _reauthenticate(self) -> None:
        """Let requests in flight finish, then authenticate; new requests wait at the gate meanwhile."""
        gate = self._gate = asyncio.Event()
        try:
            while self._requests:
                # a cancelled request stays queued until the broker has answered it
                last = self._requests[-1][2]
                await (asyncio.sleep(0.005) if last.done() else asyncio.wait([last]))
            if self._writer is not None:
                await self._do_sasl_handshake()
                self._remember(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, this connection is of no more use
            self._remember(error)
            self.close(reason=aiokafka.conn.CloseReason.AUTH_FAILURE, exc=error)
        finally:
            self._gate = None
            gate.set()

    def close(self, *args: Any, **options: Any) -> Any:
        """Close, and forget about renewing; what waits to be sent learns that there is no connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._frames is not None:
            self._frames.stop()
        if self._throttled_until is not None:
            self._throttled_until.cancel()
            self._go_on()
        return super().close(*args, **options)


def _spell_foreign(head: bytes) -> str:
    """Say what a service speaks, from its first bytes."""
    known = next((name for begin, name in FOREIGNERS if head.startswith(begin)), None)
    return f"it speaks {known}, not Kafka's protocol" if known else f"it does not speak Kafka's protocol ({head!r})"


async def create_connection(host: str, port: int, **options: Any) -> Connection:
    """Connect as `aiokafka.conn.create_conn` does; to where the broker is now, if it may move."""
    name = options.get("client_id")
    if isinstance(name, ClientName) and name.locate is not None:
        try:
            host, _, number = (await name.locate()).rpartition(":")
        except OctopusError as error:
            name.failure = KafkaConnectionError(str(error))
            raise name.failure from error
        host, port = host.strip("[]"), int(number)
    connection = Connection(host, port, **options)
    await connection.connect()
    return connection


def refusal(failure: BaseException | None) -> OctopusError | None:
    """Return our own error behind a failed connection: of a token provider, or of who looks for the broker."""
    cause = failure.__cause__ if failure is not None else None
    return cause if isinstance(cause, AuthError | ConnectionFailed) else None


class _NoTokens(logging.Filter):
    """Drops the records that print whole requests and answers: a SaslAuthenticate request carries the token."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(isinstance(argument, Struct) for argument in record.args or ())


_no_tokens = _NoTokens()


def install() -> None:
    """Put this connection into aiokafka."""
    logging.getLogger("aiokafka.conn").addFilter(_no_tokens)
    _client_module.create_conn = create_connection
    _fetcher_module.MemoryRecords = fetched.FetchedBatches
