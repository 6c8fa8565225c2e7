"""Tokens for Amazon MSK with IAM: a presigned request as a bearer token, signed here.

The signature is AWS Signature Version 4 in the query string, as Amazon's own signers make it
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html). Doing it with the standard library
saves a cold Lambda the import of botocore, and each token a session of it.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from octopus.auth.tokens import CachedTokens, Clock, Token
from octopus.errors import AuthError, ConfigurationError, LoginRequired, TokenExpired

LIFETIME = 900.0
"""Seconds for which the signature is valid: the most that MSK takes."""

SHORTEST_SESSION = 60.0
"""Seconds of life that credentials must have left: brokers refuse shorter ones with "Session too short"."""


class Credentials(msgspec.Struct, frozen=True):
    """AWS credentials.

    Attributes:
        access_key: Access key id.
        secret_key: Secret access key.
        session_token: Of temporary credentials.
        expires_at: Seconds since the epoch; None when they do not say.
    """

    access_key: str
    secret_key: str
    session_token: str | None = None
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r}, ***)"


class MskTokenProvider:
    """Gives tokens for an MSK cluster with IAM authentication.

    Args:
        region: The cluster's region, which may not be ours; from the environment without.
        credentials: Fixed credentials, or a function that returns current ones (it may block, it is called in a thread).
            Without, those of the environment, read anew each time because Lambda changes them, or else boto3's.
        clock: Seconds since the epoch.
        user_agent: Shown in CloudTrail.

    Raises:
        ConfigurationError: No region is known.
    """

    def __init__(
        self,
        region: str | None = None,
        *,
        credentials: Credentials | Callable[[], Credentials] | None = None,
        clock: Clock = time.time,
        user_agent: str = "octopus",
    ) -> None:
        found = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not found:
            raise ConfigurationError("The region of the MSK cluster is not known. Set security.region or AWS_REGION.")
        self.region = found
        self._source = (lambda: credentials) if isinstance(credentials, Credentials) else credentials or self._found
        self._clock = clock
        self._user_agent = user_agent
        self._boto_session: Any = None
        self._tokens = CachedTokens(self._signed, clock=clock)

    async def token(self) -> str:
        """Return a valid token. Raises `AuthError` when there are no usable credentials."""
        return await self._tokens.token()

    async def _signed(self) -> Token:
        credentials = await asyncio.to_thread(self._source)
        now = self._clock()
        left = LIFETIME if credentials.expires_at is None else credentials.expires_at - now
        if left < SHORTEST_SESSION:
            raise TokenExpired(
                f"The AWS credentials {credentials.access_key} have {left:.0f} s left, too short for a session. Renew them."
            )
        token = msk_token(self.region, credentials, datetime.fromtimestamp(now, UTC), self._user_agent)
        return Token(token.value, now + min(LIFETIME, left))

    def _found(self) -> Credentials:
        found = environment_credentials(os.environ)
        return found if found is not None else self._of_boto3()

    def _of_boto3(self) -> Credentials:
        """Ask boto3's chain: profiles, containers, instance roles. Its session renews the credentials."""
        try:
            import boto3
            import botocore.exceptions
        except ImportError as error:
            raise LoginRequired(
                "There are no AWS credentials in the environment. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install "
                "octopus-fabric[aws] for profiles and roles."
            ) from error
        try:
            if self._boto_session is None:
                session: Any = boto3.session.Session
                self._boto_session = session()
            found = self._boto_session.get_credentials()
            if found is None:
                raise LoginRequired("There are no AWS credentials. Run `aws configure sso`, or set AWS_ACCESS_KEY_ID.")
            frozen = found.get_frozen_credentials()
        except botocore.exceptions.BotoCoreError as error:
            raise AuthError(f"AWS credentials cannot be had: {error}") from error
        expiry = getattr(found, "_expiry_time", None)
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token, expiry.timestamp() if expiry else None)


def environment_credentials(environment: Mapping[str, str]) -> Credentials | None:
    """Return the credentials in AWS's environment variables, None when there are none.

    Raises:
        LoginRequired: There is a key without its secret.
    """
    access_key = environment.get("AWS_ACCESS_KEY_ID")
    if not access_key:
        return None
    secret_key = environment.get("AWS_SECRET_ACCESS_KEY")
    if not secret_key:
        raise LoginRequired("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not.")
    expires_at = None
    if expiration := environment.get("AWS_CREDENTIAL_EXPIRATION"):
        try:
            expires_at = datetime.fromisoformat(expiration).timestamp()
        except ValueError as error:
            raise AuthError(f"AWS_CREDENTIAL_EXPIRATION is {expiration!r}, which is not a time.") from error
    return Credentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN") or None, expires_at)


def msk_token(region: str, credentials: Credentials, now: datetime, user_agent: str = "octopus") -> Token:
    """Sign a token for the clusters of a region.

    Args:
        region: The clusters' region.
        credentials: Of the principal that connects.
        now: Time of signing, with a time zone.
        user_agent: Added after signing, as Amazon's signers do.
    """
    host, stamp = f"kafka.{region}.amazonaws.com", now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/kafka-cluster/aws4_request"
    parameters = {
        "Action": "kafka-cluster:Connect",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(int(LIFETIME)),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        parameters["X-Amz-Security-Token"] = credentials.session_token
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))
    request = f"GET\n/\n{query}\nhost:{host}\n\nhost\n{_sha256('')}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{_sha256(request)}"
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    url = f"https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent={quote(user_agent, safe='')}"
    value = base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    return Token(value, now.replace(microsecond=0).timestamp() + LIFETIME)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
