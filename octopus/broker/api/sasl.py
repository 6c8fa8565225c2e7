"""SaslHandshake and SaslAuthenticate: PLAIN (RFC 4616) and OAUTHBEARER (RFC 7628), one exchange each."""

import hmac
from typing import Any

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import Node
from octopus.broker.request import Answer, Api, Hangup, Request
from octopus.broker.wire import Writer
from octopus.logs import get_logger

_log = get_logger(__name__)


def handle_handshake(node: Node, request: Request) -> Answer:
    """Agree on a mechanism, or name those there are."""
    mechanism = request.reader.string()
    session, code = request.session, int(Code.NONE)
    try:
        request.check()
        require(mechanism in node.settings.mechanisms, Code.UNSUPPORTED_SASL_MECHANISM)
        session.mechanism = mechanism
        session.speaks_raw = request.version == 0
    except BrokerError as error:
        code = request.refuse(error)
    answer = Writer().int16(code)
    return answer.array(node.settings.mechanisms, answer.string)


async def handle_authenticate(node: Node, request: Request) -> Writer:
    """Judge a token; a client that fails is told so and loses the connection."""
    token = request.reader.blob()
    session, code, message = request.session, int(Code.NONE), None
    try:
        request.check()
        require(session.mechanism, Code.ILLEGAL_SASL_STATE, "a handshake comes first")
        await _judge(node, session.mechanism or "", token)
        session.is_authenticated = True
    except BrokerError as error:
        code, message = request.refuse(error), str(error)
        session.is_closing = True
    session.mechanism = None
    answer = Writer().int16(code).string(message).blob(b"")
    return answer.int64(0) if request.version >= 1 else answer


async def authenticate_raw(node: Node, request: Request) -> None:
    """Judge the bare token that follows a version 0 handshake.

    Raises:
        Hangup: It was refused; this exchange has no place to say so.
    """
    session = request.session
    mechanism, session.mechanism, session.speaks_raw = session.mechanism, None, False
    try:
        await _judge(node, mechanism or "", request.reader.rest())
    except BrokerError as error:
        request.refuse(error)
        raise Hangup(str(error)) from error
    session.is_authenticated = True


async def _judge(node: Node, mechanism: str, token: bytes) -> None:
    try:
        if mechanism == "PLAIN":
            _check_password(node, token)
        else:
            await _check_bearer(node, token)
    except BrokerError:
        raise
    except Exception as error:  # a validator may raise any error; the client is not let in then
        _log.warning("%s authentication failed: %s", mechanism, type(error).__name__)
        raise BrokerError(Code.SASL_AUTHENTICATION_FAILED, "the token was refused") from error


def _check_password(node: Node, token: bytes) -> None:
    fields = token.split(b"\0")
    if len(fields) != 3:
        raise BrokerError(Code.SASL_AUTHENTICATION_FAILED, "the token is not identity, name and password")
    acts_for, name, password = fields
    expected = node.settings.passwords.get(name.decode(errors="replace"))
    # Compared also for an unknown name, and in constant time, so that the answer's timing tells nothing.
    is_right = hmac.compare_digest(password, (expected or "").encode())
    if expected is None or not is_right or acts_for not in (b"", name):
        raise BrokerError(Code.SASL_AUTHENTICATION_FAILED, "wrong name or password")


async def _check_bearer(node: Node, token: bytes) -> None:
    validate: Any = node.settings.validate_token
    values = dict(pair.split(b"=", 1) for pair in token.split(b"\x01") if b"=" in pair)
    scheme, _, bearer = values.get(b"auth", b"").decode().partition(" ")
    if not token.startswith(b"n,") or scheme.lower() != "bearer" or not bearer:
        raise BrokerError(Code.SASL_AUTHENTICATION_FAILED, "the token is not a bearer token")
    await validate(bearer)


APIS = (
    Api(17, "SaslHandshake", 0, 1, handle_handshake, before_login=True),
    Api(36, "SaslAuthenticate", 0, 1, handle_authenticate, before_login=True),
)
