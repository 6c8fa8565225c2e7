"""Services that are met by mistake: how they are recognised, and what the user who named the address is told."""

import asyncio
import ssl

from aiokafka.errors import KafkaConnectionError

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
"""How they begin to speak, and what they speak."""

NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""What Python's ssl says of services that answer something else, or hang up."""


class Foreigner(ConnectionResetError):
    """The answer of a service that does not speak Kafka's protocol.

    Args:
        head: How it began.
    """

    def __init__(self, head: bytes) -> None:
        known = next((name for begin, name in FOREIGNERS if head.startswith(begin)), None)
        super().__init__(
            f"it speaks {known}, not Kafka's protocol" if known else f"it does not speak Kafka's protocol ({head!r})"
        )


def reason(error: BaseException, where: str, protocol: str, patience: float, *, is_open: bool) -> BaseException:
    """Return why no answer came, in words for the user who named the address; the error itself where it says that.

    Args:
        error: How connecting ended.
        where: The address.
        protocol: The security protocol that was tried.
        patience: Seconds that were waited.
        is_open: Whether there was a connection, encrypted where that is asked for.
    """
    if isinstance(error.__cause__, ssl.SSLError | Foreigner):
        error = error.__cause__  # with TLS 1.3 a broker refuses a certificate when the handshake has ended for us
    is_encrypted = protocol.endswith("SSL")
    hung_up = isinstance(error, KafkaConnectionError | ConnectionResetError | ConnectionAbortedError | EOFError)
    if isinstance(error, Foreigner):
        return error
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        if is_open:
            what = f"{where} accepts connections but does not answer as Kafka does"
        elif is_encrypted:
            what = f"{where} does not answer; perhaps it does not speak TLS, which {protocol} asks for"
        else:
            what = f"{where} does not answer"
        return ConnectionError(f"{what} (nothing came for {patience:g} s)")
    if is_open and hung_up:
        hint = "" if is_encrypted else " TLS (set security.protocol to SSL or SASL_SSL) or"
        return ConnectionError(f"{where} hangs up without an answer, as ports do that expect{hint} another protocol")
    is_no_tls = isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in NO_TLS
    if is_encrypted and not is_open and (hung_up or is_no_tls):
        return ConnectionError(f"{where} does not speak TLS, which {protocol} asks for")
    return error
