"""A TLS connection that fails: only a certificate that is not accepted is a matter of credentials, all else passes."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octopus.errors import ConnectionFailed, NotAuthorized, TransportError
from octopus.transports.kafka.errors import NOT_TRUSTED, translated
from octopus.transports.opening import open_transport
from tests.support.kafka_security import make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("broker"))


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("another"))


@contextlib.contextmanager
def listening(context: ssl.SSLContext) -> Iterator[str]:
    """A server that shakes hands, as brokers do with an alert when it fails, and then hangs up; yields its address."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # the test has ended
            while True:
                client, _ = listener.accept()
                with context.wrap_socket(client, server_side=True, do_handshake_on_connect=False) as encrypted:
                    with contextlib.suppress(OSError):
                        encrypted.do_handshake()
                    encrypted.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError):
                        while socket.socket.recv(encrypted, 4096):
                            pass  # closed with something unread, it would take its alert back

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def asking_for_certificates(certificate: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(certificate.with_name("server.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    return context


async def failure(address: str, **options: Any) -> TransportError:
    """Return why a broker cannot be reached."""
    with pytest.raises(TransportError) as caught:
        await open_transport(address, **options).open()
    return caught.value


async def test_a_broker_whose_authority_is_unknown_is_not_trusted(certificate: Path, another: Path) -> None:
    with listening(asking_for_certificates(certificate, ssl.TLSVersion.TLSv1_3)) as address:
        error = await failure(address, ca_file=str(another))
    assert (type(error), error.retryable) == (NotAuthorized, False)
    assert "Check ca_file." in str(error)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_that_the_broker_does_not_know_is_refused(
    certificate: Path, another: Path, version: ssl.TLSVersion
) -> None:
    ours = {"certificate_file": str(another), "key_file": str(another.with_name("server.pem"))}
    with listening(asking_for_certificates(certificate, version)) as address:
        error = await failure(address, ca_file=str(certificate), **ours)
    assert (type(error), error.retryable) == (NotAuthorized, False)
    assert "does not accept our certificate" in str(error)
    assert "Check certificate_file." in str(error)


async def test_no_certificate_where_one_is_required_is_refused(certificate: Path) -> None:
    with listening(asking_for_certificates(certificate, ssl.TLSVersion.TLSv1_3)) as address:
        error = await failure(address, ca_file=str(certificate))
    assert type(error) is NotAuthorized
    assert "does not accept our certificate" in str(error)


async def test_versions_of_tls_that_do_not_meet_are_a_failed_connection(certificate: Path) -> None:
    client = ssl.create_default_context(cafile=str(certificate))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with listening(asking_for_certificates(certificate, ssl.TLSVersion.TLSv1_3)) as address:
        error = await failure(address, ssl_context=client)
    assert (type(error), error.retryable) == (ConnectionFailed, True)


def made(kind: type[ssl.SSLError], reason: str) -> ssl.SSLError:
    error = kind(1, "in whatever words")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (made(ssl.SSLCertVerificationError, "CERTIFICATE_VERIFY_FAILED"), NotAuthorized),
        *[(made(ssl.SSLError, reason), NotAuthorized) for reason in sorted(NOT_TRUSTED)],
        (made(ssl.SSLEOFError, "UNEXPECTED_EOF_WHILE_READING"), ConnectionFailed),
        (made(ssl.SSLZeroReturnError, "TLS/SSL connection has been closed (EOF)"), ConnectionFailed),
        (made(ssl.SSLSyscallError, "some error of the system"), ConnectionFailed),
        (made(ssl.SSLError, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), ConnectionFailed),
        (made(ssl.SSLError, "SSLV3_ALERT_HANDSHAKE_FAILURE"), ConnectionFailed),
        (made(ssl.SSLError, "TLSV1_ALERT_INTERNAL_ERROR"), ConnectionFailed),
        (ssl.SSLError("without a reason"), ConnectionFailed),
    ],
    ids=lambda value: getattr(value, "reason", None) or value.__name__ if isinstance(value, type) else None,
)
def test_only_certificates_are_a_matter_of_credentials(error: ssl.SSLError, kind: type[TransportError]) -> None:
    ours = translated(error, "connecting", "broker:9093")
    assert type(ours) is kind
    assert isinstance(ours, TransportError)
    assert ours.retryable is (kind is ConnectionFailed)
