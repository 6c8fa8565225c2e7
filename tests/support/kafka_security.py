"""What a secured test cluster needs: a certificate, users, and signed tokens (all through `openssl`)."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.kafka_jars import KafkaUnavailable

ISSUER = "https://issuer.test"
AUDIENCE = "octopus-kafka"
KEY_ID = "test-key"

# For PLAIN and both SCRAM mechanisms. `admin` is a super user.
USERS = {"admin": "admin-secret", "alice": "alice-secret", "bob": "bob-secret"}

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_OAUTH = "org.apache.kafka.common.security.oauthbearer"


def make_certificate(directory: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1 and localhost; return its PEM file, which is also its CA.

    `server.pem`, beside it, carries the private key too.
    """
    key, certificate = directory / "server.key", directory / "ca.pem"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    server = directory / "server.pem"
    server.touch(mode=0o600)
    server.write_bytes(key.read_bytes() + certificate.read_bytes())
    return certificate


def make_signing_key(directory: Path) -> Path:
    """Write an RSA key for tokens and the JWKS file that publishes it; return the JWKS file."""
    key, jwks = directory / "token.key", directory / "jwks.json"
    _openssl("genrsa", "-out", str(key), "2048")
    modulus = _openssl("rsa", "-in", str(key), "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
    public = {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": KEY_ID,
        "e": "AQAB",
        "n": _encode(bytes.fromhex(modulus)),
    }
    jwks.write_text(json.dumps({"keys": [public]}))
    return jwks


def sign_token(key: Path, subject: str, lifetime: float, claims: Mapping[str, object]) -> str:
    """Return a JWT (RS256) for `subject`, good for `lifetime` seconds; `claims` add to or replace the usual ones."""
    now = time.time()
    head = {"alg": "RS256", "typ": "JWT", "kid": KEY_ID}
    body = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": int(now), "exp": int(now + lifetime), **claims}
    signed = ".".join(_encode(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{_encode(_openssl('dgst', '-sha256', '-sign', str(key), stdin=signed.encode()))}"


def sasl_properties(jwks: Path) -> dict[str, str]:
    """Return the broker settings for PLAIN, SCRAM and OAUTHBEARER on the listener CLIENTS, with an authorizer.

    Resources without any ACL are open to everyone who has logged in; for the strict rule set
    `allow.everyone.if.no.acl.found=false`. `User:ANONYMOUS` is the controller and the internal listener.
    """
    listener = "listener.name.clients"
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    return {
        f"{listener}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"{listener}.plain.sasl.jaas.config": f"{_PLAIN} {users};",
        f"{listener}.scram-sha-256.sasl.jaas.config": _SCRAM,
        f"{listener}.scram-sha-512.sasl.jaas.config": _SCRAM,
        # No options after `required`: any of them breaks a listener that only validates (KAFKA-21143).
        f"{listener}.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
        f"{listener}.oauthbearer.sasl.server.callback.handler.class": f"{_OAUTH}.OAuthBearerValidatorCallbackHandler",
        "sasl.oauthbearer.jwt.validator.class": f"{_OAUTH}.BrokerJwtValidator",
        "sasl.oauthbearer.jwks.endpoint.url": jwks.as_uri(),
        "sasl.oauthbearer.expected.issuer": ISSUER,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.clock.skew.seconds": "1",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": "User:ANONYMOUS;User:admin",
    }


def tls_properties(certificate: Path) -> dict[str, str]:
    """Return the broker settings for TLS on the listener CLIENTS, from PEM files."""
    listener = "listener.name.clients"
    return {
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": str(certificate.with_name("server.pem")),
        f"{listener}.ssl.truststore.type": "PEM",
        f"{listener}.ssl.truststore.location": str(certificate),
    }


def scram_arguments() -> list[str]:
    """Return the arguments that let StorageTool create the first SCRAM users."""
    return [
        argument
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        for name, password in USERS.items()
        for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
    ]


def _openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise KafkaUnavailable("A secured Apache Kafka needs keys: install openssl.")
    done = subprocess.run([openssl, *arguments], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, f"openssl {arguments[0]} failed: {done.stderr.decode()}"
    return done.stdout


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
